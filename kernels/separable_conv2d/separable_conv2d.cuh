// Arithmetic of separable_conv2d for one value, on the host and on the device.
#pragma once

#include "bias_act.cuh"
#include "guide_fast/separable_conv2d.h"
#include "host_device.h"

namespace gf {

// clamp(act(product + noise + bias) * gain) * next_style
template <class Float>
GF_HD Float separable_epilogue(Float product, Float noise, Float bias, Float next_style, const gf_separable_conv2d& a) {
  return activate<Float>(product + noise + bias, a.activation, a.slope, a.gain, a.clamp) * next_style;
}

// Whether the pixel at (dy, dx) of the 3x3 window around (row, column) is inside the image; k = 3 dy + dx + 4.
GF_HD bool window_inside(int row, int column, int k, int height, int width) {
  const int y = row + k / 3 - 1, x = column + k % 3 - 1;
  return y >= 0 && y < height && x >= 0 && x < width;
}

// How far that pixel is from the centre.
GF_HD int window_offset(int k, int width) { return (k / 3 - 1) * width + k % 3 - 1; }

}  // namespace gf
