// Native CPU path of modulated_conv2d in float32: for programs without PyTorch, whose dense convolution is faster.
#include <algorithm>
#include <cstring>
#include <vector>

#include "dispatch_dtype.h"
#include "isa.h"
#include "modulated_conv2d.cuh"
#include "parallel.h"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

constexpr int kPixels = 6;   // of one row, times
constexpr int kVectors = 2;  // of output channels: what fits the registers
constexpr int kChannels = kLanes * kVectors;
constexpr int64_t kRows = 4;  // of the output that share a copy of the input

// acc[p][c] += sum over taps, input channels of x[p] * w: `x` points at the pixel of the first tap.
template <int Pixels>
void tile(const float* const* rows, const int64_t* columns, int taps_y, int taps_x, const float* const* weights,
          int64_t in_channels, int64_t stride, int64_t out_channels, float* out) {
  Vector acc[Pixels][kVectors] = {};
  for (int ty = 0; ty < taps_y; ++ty)
    for (int tx = 0; tx < taps_x; ++tx) {
      const float* x = rows[ty] + columns[tx] * in_channels;
      const float* w = weights[ty * taps_x + tx];
      for (int64_t i = 0; i < in_channels; ++i, w += out_channels) {
        Vector b[kVectors];
        for (int v = 0; v < kVectors; ++v) b[v] = *reinterpret_cast<const Vector*>(w + v * kLanes);
        for (int p = 0; p < Pixels; ++p)
          for (int v = 0; v < kVectors; ++v) acc[p][v] += x[p * stride + i] * b[v];
      }
    }
  std::memcpy(out, acc, sizeof acc);
}

// The same for the channels that no whole tile covers.
void edge(const float* const* rows, const int64_t* columns, int taps_y, int taps_x, const float* const* weights,
          int64_t in_channels, int64_t stride, int64_t out_channels, int pixels, int64_t channels, float* out) {
  std::fill(out, out + kPixels * kChannels, 0.f);
  for (int ty = 0; ty < taps_y; ++ty)
    for (int tx = 0; tx < taps_x; ++tx) {
      const float* x = rows[ty] + columns[tx] * in_channels;
      const float* w = weights[ty * taps_x + tx];
      for (int64_t i = 0; i < in_channels; ++i, w += out_channels)
        for (int p = 0; p < pixels; ++p)
          for (int64_t c = 0; c < channels; ++c) out[p * kChannels + c] += x[p * stride + i] * w[c];
    }
}

gf::Epilogue epilogue_of(const gf_modulated_conv2d& a) { return {a.activation, a.slope, a.gain, a.clamp}; }

void finish(const gf_modulated_conv2d& a, int64_t image, int64_t pixel, int64_t first, int64_t channels,
            const float* value, float* y) {
  const gf::Epilogue epilogue = epilogue_of(a);
  const float noise = a.noise ? static_cast<const float*>(a.noise)[image * a.noise_stride + pixel] : 0.f;
  const float* bias = static_cast<const float*>(a.bias);
  const float* next = static_cast<const float*>(a.next_style);
  const int64_t row = image * a.out_channels;
  for (int64_t c = first; c < first + channels; ++c)
    y[c - first] = epilogue(value[c - first], a.power ? a.demod[row + c] : 1.f, noise, bias ? bias[c] : 0.f,
                            next ? next[row + c] : 1.f);
}

// Convolution of one phase: rows [begin, end) of the grid of one image.
void convolve(const gf_modulated_conv2d& a, int64_t image, int64_t begin, int64_t end, int phase_y, int phase_x,
              int64_t out_height, int64_t out_width, float* out) {
  const gf::ConvolutionAxis ay = gf::forward_axis(a.kernel, a.up, phase_y);
  const gf::ConvolutionAxis ax = gf::forward_axis(a.kernel, a.up, phase_x);
  const int64_t in = a.in_channels, outs = a.out_channels;
  const int64_t grid = a.up == 1 ? a.width : gf::phase_size(out_width, phase_x);
  const float* x = static_cast<const float*>(a.x) + image * a.height * a.width * in;
  const float* style = static_cast<const float*>(a.style) + image * in;

  // the rows that these outputs see, times the style, with zeros around
  const int64_t margin_y = ay.stride * (ay.taps - 1), low = begin + ay.first + std::min<int64_t>(0, margin_y);
  const int64_t high = end - 1 + ay.first + std::max<int64_t>(0, margin_y);
  const int64_t left = std::min<int64_t>(0, ax.first + std::min(0, ax.stride * (ax.taps - 1)));
  const int64_t columns = std::max<int64_t>(a.width, grid + ax.first + std::max(0, ax.stride * (ax.taps - 1))) - left;
  static thread_local std::vector<float> copy;
  copy.assign(size_t((high - low + 1) * columns * in), 0.f);
  for (int64_t row = std::max<int64_t>(low, 0); row <= std::min(high, a.height - 1); ++row)
    for (int64_t column = 0; column < a.width; ++column) {
      const float* from = x + (row * a.width + column) * in;
      float* to = copy.data() + ((row - low) * columns + column - left) * in;
      for (int64_t i = 0; i < in; ++i) to[i] = a.premodulated ? from[i] : from[i] * style[i];
    }

  const float* weights[9];
  for (int t = 0; t < ay.taps * ax.taps; ++t)
    weights[t] = static_cast<const float*>(a.packed) +
                 (ay.weight(t / ax.taps) * int64_t(a.kernel) + ax.weight(t % ax.taps)) * in * outs;
  int64_t first_columns[3];
  for (int64_t c = 0; c < outs; c += kChannels) {
    const int64_t channels = std::min<int64_t>(kChannels, outs - c);
    const float* shifted[9];
    for (int t = 0; t < ay.taps * ax.taps; ++t) shifted[t] = weights[t] + c;
    for (int64_t row = begin; row < end; ++row) {
      const float* rows[3];
      for (int t = 0; t < ay.taps; ++t) rows[t] = copy.data() + (ay.input(int32_t(row), t) - low) * columns * in;
      for (int64_t column = 0; column < grid; column += kPixels) {
        const int pixels = int(std::min<int64_t>(kPixels, grid - column));
        for (int t = 0; t < ax.taps; ++t) first_columns[t] = ax.input(int32_t(column), t) - left;
        float values[kPixels * kChannels];
        if (channels < kChannels)
          edge(rows, first_columns, ay.taps, ax.taps, shifted, in, in, outs, pixels, channels, values);
        else if (pixels == kPixels)
          tile<kPixels>(rows, first_columns, ay.taps, ax.taps, shifted, in, in, outs, values);
        else
          for (int p = 0; p < pixels; ++p) {
            int64_t at[3];
            for (int t = 0; t < ax.taps; ++t) at[t] = first_columns[t] + p;
            tile<1>(rows, at, ay.taps, ax.taps, shifted, in, in, outs, values + p * kChannels);
          }
        for (int p = 0; p < pixels; ++p) {
          const int64_t pixel = ay.output(int32_t(row)) * out_width + ax.output(int32_t(column + p));
          float* y = out + ((image * out_height * out_width) + pixel) * outs + c;
          const float* value = values + p * kChannels;
          if (a.up == 1)
            finish(a, image, pixel, c, channels, value, y);
          else
            std::copy(value, value + channels, y);
        }
      }
    }
  }
}

void convolve_all(const gf_modulated_conv2d& a, int phase_y, int phase_x, int64_t height, int64_t width, float* out) {
  const int64_t rows = a.up == 1 ? a.height : gf::phase_size(height, phase_y);
  const int64_t blocks = (rows + kRows - 1) / kRows;
  gf::parallel_for(0, a.n * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task % blocks * kRows;
      convolve(a, task / blocks, row, std::min(row + kRows, rows), phase_y, phase_x, height, width, out);
    }
  });
}

// The FIR of up = 2, separable, then the epilogue.
void fir(const gf_modulated_conv2d& a, int64_t zh, int64_t zw) {
  const int64_t height = 2 * a.height, width = 2 * a.width, outs = a.out_channels;
  const int padding = gf::fir_padding(a.kernel);
  const float* z = static_cast<const float*>(a.z);
  gf::parallel_for(0, a.n * height, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> line(size_t((width + 3) * outs)), value(size_t(outs), 0.f);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / height, row = task % height;
      std::fill(line.begin(), line.end(), 0.f);
      for (int j = 0; j < 4; ++j) {
        const int64_t from = row + j - padding;
        if (from < 0 || from >= zh) continue;
        const float* source = z + (image * zh + from) * zw * outs;
        float* to = line.data() + padding * outs;
        for (int64_t i = 0; i < zw * outs; ++i) to[i] += gf::fir_tap(j) * source[i];
      }
      for (int64_t column = 0; column < width; ++column) {
        const float* source = line.data() + column * outs;
        for (int64_t c = 0; c < outs; ++c)
          value[c] = 0.25f * (source[c] + source[c + 3 * outs]) + 0.75f * (source[c + outs] + source[c + 2 * outs]);
        const int64_t pixel = row * width + column;
        finish(a, image, pixel, 0, outs, value.data(),
               static_cast<float*>(a.y) + (image * height * width + pixel) * outs);
      }
    }
  });
}

template <class T>
void prepare(const gf_modulated_conv2d_weight& a) {
  const T* weight = static_cast<const T*>(a.weight);
  T* packed = static_cast<T*>(a.packed);
  const int64_t taps = int64_t(a.kernel) * a.kernel;
  if (!packed) {  // in the order of the weight
    gf::parallel_for(0, a.power ? a.out_channels * a.in_channels : 0, 1 << 12, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        float sum = 0;
        for (int64_t t = 0; t < taps; ++t) sum += gf::load(weight[at * taps + t]) * gf::load(weight[at * taps + t]);
        a.power[at] = sum;
      }
    });
    return;
  }
  gf::parallel_for(0, a.in_channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t o = 0; o < a.out_channels; ++o) {
        float sum = 0;
        for (int64_t t = 0; t < taps; ++t) {
          const T w = weight[(o * a.in_channels + i) * taps + t];
          packed[(t * a.in_channels + i) * a.out_channels + o] = w;
          sum += gf::load(w) * gf::load(w);
        }
        if (a.power) a.power[o * a.in_channels + i] = sum;
      }
  });
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_weight_cpu)(const gf_modulated_conv2d_weight* a) {
  GF_DISPATCH_DTYPE(a->dtype, T, prepare<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_weight_cpu, gf_modulated_conv2d_weight)

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_cpu)(const gf_modulated_conv2d* a) {
  if (a->dtype != GF_FLOAT32) return gf_fail(GF_INVALID, "dtype %d is not computed on the CPU; use float32", a->dtype);
  if ((a->kernel != 1 && a->kernel != 3) || (a->up != 1 && a->up != 2))
    return gf_fail(GF_INVALID, "kernel %d with up %d is not known; use 1 or 3, 1 or 2", a->kernel, a->up);
  if (a->power) {
    const float* style = static_cast<const float*>(a->style);
    gf::parallel_for(0, a->n * a->out_channels, 64, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        const float* s = style + at / a->out_channels * a->in_channels;
        const float* power = a->power + at % a->out_channels * a->in_channels;
        float sum = 0;
        for (int64_t i = 0; i < a->in_channels; ++i) sum += s[i] * s[i] * power[i];
        a->demod[at] = gf::demodulation(sum);
      }
    });
  }
  if (a->up == 1) {
    convolve_all(*a, 0, 0, a->height, a->width, static_cast<float*>(a->y));
    return GF_OK;
  }
  const int64_t zh = gf::transposed_size(a->height, a->kernel), zw = gf::transposed_size(a->width, a->kernel);
  if (a->kernel == 1) std::fill_n(static_cast<float*>(a->z), a->n * zh * zw * a->out_channels, 0.f);
  for (int phase = 0; phase < 4; ++phase)
    if (phase / 2 < a->kernel && phase % 2 < a->kernel)
      convolve_all(*a, phase / 2, phase % 2, zh, zw, static_cast<float*>(a->z));
  fir(*a, zh, zw);
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_cpu, gf_modulated_conv2d)
