// Arithmetic of modulated_conv2d on the host and on the device: where taps read, the epilogue, its derivative.
#pragma once

#include <cmath>

#include "bias_act.cuh"
#include "guide_fast/modulated_conv2d.h"
#include "host_device.h"

namespace gf {

// Output pixel `row * step_out + phase` takes, for tap t, the input pixel `row * step_in + first + t * stride` times
// the weight of tap `phase + t * step_out`: one axis of every convolution here.
struct ConvolutionAxis {
  int32_t taps;
  int32_t step_in, step_out;
  int32_t first, stride;
  int32_t phase;

  GF_HD int32_t input(int32_t row, int32_t tap) const { return row * step_in + first + tap * stride; }
  GF_HD int32_t output(int32_t row) const { return row * step_out + phase; }
  GF_HD int32_t weight(int32_t tap) const { return phase + tap * step_out; }
};

// up = 1: correlation with zeros around; up = 2: one phase of the transposed convolution of stride 2.
GF_HD ConvolutionAxis forward_axis(int32_t kernel, int32_t up, int32_t phase) {
  if (up == 1) return {kernel, 1, 1, -(kernel / 2), 1, 0};
  return {(kernel - phase + 1) / 2, 1, 2, 0, -1, phase};
}

// The adjoint: from the gradient of the convolution's output to that of its input.
GF_HD ConvolutionAxis gradient_axis(int32_t kernel, int32_t up) {
  if (up == 1) return {kernel, 1, 1, kernel / 2, -1, 0};
  return {kernel, 2, 1, 0, 1, 0};
}

// Pixels of the transposed convolution along an axis; those of phase `phase` among `size`.
GF_HD int64_t transposed_size(int64_t size, int32_t kernel) { return 2 * size + kernel - 2; }
GF_HD int64_t phase_size(int64_t size, int32_t phase) { return (size - phase + 1) / 2; }

// [1, 3, 3, 1] / 4 and the zeros before the first pixel it sees; its adjoint is the same with the other padding.
GF_HD float fir_tap(int32_t j) { return j == 0 || j == 3 ? 0.25f : 0.75f; }
GF_HD int32_t fir_padding(int32_t kernel) { return kernel == 3 ? 1 : 2; }
GF_HD int32_t fir_adjoint_padding(int32_t kernel) { return 3 - fir_padding(kernel); }

GF_HD float demodulation(float sum_of_squares) { return 1.f / sqrtf(sum_of_squares + 1e-8f); }

// One layer's epilogue for a value of the convolution; absent parts are d = 1, noise = 0, bias = 0, next = 1.
struct Epilogue {
  gf_activation activation;
  float slope, gain, clamp;

  GF_HD float operator()(float value, float d, float noise, float bias, float next) const {
    return activate(value * d + noise + bias, activation, slope, gain, clamp) * next;
  }

  // gradient of the pre-activation, from the output
  GF_HD float backward(float gy, float y) const { return gy * activate_slope(y, activation, slope, gain, clamp); }

  // what the activation saw, from the output; meaningless where the clamp held it, where `backward` is zero
  GF_HD float pre_activation(float y) const {
    const float before = y / gain;
    return activation == GF_LRELU && y < 0 ? before / slope : before;
  }
};

}  // namespace gf
