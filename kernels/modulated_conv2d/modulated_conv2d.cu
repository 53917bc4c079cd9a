// CUDA kernels and launchers of modulated_conv2d: implicit GEMMs with fused epilogues, the FIR, backward reductions.
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda_launch.h"
#include "modulated_conv2d_gemm.cuh"

namespace {

using namespace gf::conv;
constexpr int kBlock = 256;
constexpr int kLanes = 32;
constexpr int64_t kFullGrid = 256;  // blocks that fill a large GPU
constexpr int64_t kMostSplits = 64;

template <class T>
__device__ float value(const void* p, int64_t at) {
  return Element<T>::get(static_cast<const T*>(p)[at]);
}

template <class T>
__global__ void weight_layout(gf_modulated_conv2d_weight a) {
  const int64_t total = a.in_channels * a.out_channels, taps = a.kernel * a.kernel;
  for (int64_t at = int64_t(blockIdx.x) * kBlock + threadIdx.x; at < total; at += int64_t(gridDim.x) * kBlock) {
    const int64_t i = at / a.out_channels, o = at % a.out_channels;
    float sum = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const T w = static_cast<const T*>(a.weight)[(o * a.in_channels + i) * taps + t];
      static_cast<T*>(a.packed)[t * total + at] = w;
      sum += Element<T>::get(w) * Element<T>::get(w);
    }
    if (a.power) a.power[o * a.in_channels + i] = sum;
  }
}

// one warp for each of [n, out_channels]
template <class T>
__global__ void demodulate(gf_modulated_conv2d a) {
  const int64_t at = (int64_t(blockIdx.x) * kBlock + threadIdx.x) / kLanes;
  if (at >= a.n * a.out_channels) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % kLanes; i < a.in_channels; i += kLanes) {
    const float s = value<T>(a.style, at / a.out_channels * a.in_channels + i);
    sum += s * s * a.power[at % a.out_channels * a.in_channels + i];
  }
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % kLanes == 0) a.demod[at] = gf::demodulation(sum);
}

template <class T>
__device__ void finish(const gf_modulated_conv2d& a, float v, int64_t image, int64_t pixel, int64_t channel,
                       int64_t at) {
  const gf::Epilogue epilogue{a.activation, a.slope, a.gain, a.clamp};
  const int64_t of_image = image * a.out_channels + channel;
  const float y = epilogue(v, a.power ? a.demod[of_image] : 1.f,
                           a.noise ? value<T>(a.noise, image * a.noise_stride + pixel) : 0.f,
                           a.bias ? value<T>(a.bias, channel) : 0.f,
                           a.next_style ? value<T>(a.next_style, of_image) : 1.f);
  static_cast<T*>(a.y)[at] = Element<T>::put(y);
}

// up = 1: y, whole; up = 2: z, one phase
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    forward(gf_modulated_conv2d a, Convolution c, int64_t height, int64_t width) {
  __shared__ Shared<T> shared;
  const int64_t tiles = c.tiles(), image = blockIdx.x / tiles;
  const int64_t first_row = blockIdx.x % tiles * kTile, first_column = int64_t(blockIdx.y) * kTile;
  convolve<T, false>(c, image, first_row, first_column, shared);
  for (int at = threadIdx.x; at < kTile * kTile; at += kThreads) {
    const int64_t row = first_row + at / kTile, channel = first_column + at % kTile;
    if (row >= c.rows_y * c.rows_x || channel >= c.columns) continue;
    const int64_t pixel = c.y.output(int32_t(row / c.rows_x)) * width + c.x.output(int32_t(row % c.rows_x));
    const int64_t to = (image * height * width + pixel) * c.columns + channel;
    const float v = shared.result[at / kTile * kStage + at % kTile];
    if (a.up == 1)
      finish<T>(a, v, image, pixel, channel, to);
    else
      static_cast<T*>(a.z)[to] = Element<T>::put(v);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) input_gradient(gf_modulated_conv2d_backward a, Convolution c) {
  __shared__ Shared<T> shared;
  const int64_t tiles = c.tiles(), image = blockIdx.x / tiles, pixels = a.height * a.width;
  const int64_t first_row = blockIdx.x % tiles * kTile, first_column = int64_t(blockIdx.y) * kTile;
  convolve<T, true>(c, image, first_row, first_column, shared);
  const int64_t channel = first_column + threadIdx.x % kTile;  // the same for all that a thread visits
  if (channel >= c.columns) return;
  const float style = a.premodulated ? 1.f : value<T>(a.style, image * a.in_channels + channel);
  float sum = 0;
  for (int at = threadIdx.x; at < kTile * kTile; at += kThreads) {
    const int64_t row = first_row + at / kTile, to = (image * pixels + row) * c.columns + channel;
    if (row >= pixels) break;
    const float t = shared.result[at / kTile * kStage + at % kTile];
    if (a.gstyle && !a.premodulated) sum += t * value<T>(a.x, to);
    if (a.gx) static_cast<T*>(a.gx)[to] = Element<T>::put(style * t);
  }
  if (a.gstyle && !a.premodulated) atomicAdd(a.gstyle + image * a.in_channels + channel, sum);
}

// in [n, in_height, in_width, channels] -> value of [1, 3, 3, 1] / 4 along both axes at one element of the output
template <class T>
__device__ float fir(const void* in, int64_t image, int64_t y, int64_t x, int64_t channel, int64_t in_height,
                     int64_t in_width, int64_t channels, int padding) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = y + j - padding, column = x + i - padding;
      if (row < 0 || row >= in_height || column < 0 || column >= in_width) continue;
      sum += gf::fir_tap(j) * gf::fir_tap(i) *
             value<T>(in, ((image * in_height + row) * in_width + column) * channels + channel);
    }
  return sum;
}

template <class T>
__global__ void fir_forward(gf_modulated_conv2d a, int64_t z_height, int64_t z_width) {
  const int64_t height = 2 * a.height, width = 2 * a.width, total = a.n * height * width * a.out_channels;
  for (int64_t at = int64_t(blockIdx.x) * kBlock + threadIdx.x; at < total; at += int64_t(gridDim.x) * kBlock) {
    const int64_t channel = at % a.out_channels, pixel = at / a.out_channels % (height * width);
    const int64_t image = at / a.out_channels / (height * width);
    const float v = fir<T>(a.z, image, pixel / width, pixel % width, channel, z_height, z_width, a.out_channels,
                           gf::fir_padding(a.kernel));
    finish<T>(a, v, image, pixel, channel, at);
  }
}

template <class T>
__global__ void fir_backward(gf_modulated_conv2d_backward a, int64_t z_height, int64_t z_width) {
  const int64_t total = a.n * z_height * z_width * a.out_channels;
  for (int64_t at = int64_t(blockIdx.x) * kBlock + threadIdx.x; at < total; at += int64_t(gridDim.x) * kBlock) {
    const int64_t channel = at % a.out_channels, pixel = at / a.out_channels % (z_height * z_width);
    const int64_t image = at / a.out_channels / (z_height * z_width);
    const float v = fir<T>(a.g, image, pixel / z_width, pixel % z_width, channel, 2 * a.height, 2 * a.width,
                           a.out_channels, gf::fir_adjoint_padding(a.kernel));
    static_cast<T*>(a.gz)[at] = Element<T>::put(v);
  }
}

// A block takes 32 channels of a share of one image's pixels: a warp is a pixel, a lane a channel.
template <class T>
__global__ void __launch_bounds__(kBlock)
    epilogue_backward(gf_modulated_conv2d_backward a, int64_t pixels, int64_t share) {
  __shared__ float bias_sums[kBlock / kLanes][kLanes], demod_sums[kBlock / kLanes][kLanes];
  const gf::Epilogue epilogue{a.activation, a.slope, a.gain, a.clamp};
  const int64_t shares = (pixels + share - 1) / share, image = blockIdx.x / shares;
  const int64_t begin = blockIdx.x % shares * share, end = begin + share < pixels ? begin + share : pixels;
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int64_t channel = int64_t(blockIdx.y) * kLanes + lane;
  const bool valid = channel < a.out_channels;
  const float d = a.power && valid ? a.demod[image * a.out_channels + channel] : 1.f;
  const float bias = a.bias && valid ? value<T>(a.bias, channel) : 0.f;
  float of_bias = 0, of_demod = 0;
  for (int64_t pixel = begin + warp; pixel < end; pixel += kBlock / kLanes) {
    const int64_t at = (image * pixels + pixel) * a.out_channels + channel;
    float g = 0;
    if (valid) {
      const float y = value<T>(a.y, at);
      g = epilogue.backward(value<T>(a.gy, at), y);
      of_bias += g;
      if (a.gdemod) {
        const float noise = a.noise ? value<T>(a.noise, image * a.noise_stride + pixel) : 0.f;
        of_demod += g * (epilogue.pre_activation(y) - noise - bias);
      }
      if (a.g) static_cast<T*>(a.g)[at] = Element<T>::put(g * d);
    }
    if (a.gnoise) {
      for (int step = kLanes / 2; step > 0; step /= 2) g += __shfl_xor_sync(~0u, g, step);
      if (lane == 0) atomicAdd(a.gnoise + image * pixels + pixel, g);
    }
  }
  bias_sums[warp][lane] = of_bias;
  demod_sums[warp][lane] = of_demod;
  __syncthreads();
  if (warp > 0 || !valid) return;
  for (int w = 1; w < kBlock / kLanes; ++w) of_bias += bias_sums[w][lane], of_demod += demod_sums[w][lane];
  if (a.gbias) atomicAdd(a.gbias + channel, of_bias);
  if (a.gdemod) atomicAdd(a.gdemod + image * a.out_channels + channel, of_demod / d);
}

// What goes through the demodulation: h = -gd * d^3, gs += s * (h A), gW += W * (h^T s^2).
__device__ float through(const gf_modulated_conv2d_backward& a, int64_t at) {
  return -a.gdemod[at] * a.demod[at] * a.demod[at] * a.demod[at];
}

template <class T>
__global__ void style_through_demod(gf_modulated_conv2d_backward a) {
  const int64_t total = a.n * a.in_channels;
  for (int64_t at = int64_t(blockIdx.x) * kBlock + threadIdx.x; at < total; at += int64_t(gridDim.x) * kBlock) {
    const int64_t image = at / a.in_channels, i = at % a.in_channels;
    float sum = 0;
    for (int64_t o = 0; o < a.out_channels; ++o)
      sum += through(a, image * a.out_channels + o) * a.power[o * a.in_channels + i];
    a.gstyle[at] += value<T>(a.style, at) * sum;
  }
}

template <class T>
__global__ void weight_through_demod(gf_modulated_conv2d_backward a) {
  const int64_t total = a.in_channels * a.out_channels;
  for (int64_t at = int64_t(blockIdx.x) * kBlock + threadIdx.x; at < total; at += int64_t(gridDim.x) * kBlock) {
    const int64_t i = at / a.out_channels, o = at % a.out_channels;
    float sum = 0;
    for (int64_t image = 0; image < a.n; ++image) {
      const float s = value<T>(a.style, image * a.in_channels + i);
      sum += through(a, image * a.out_channels + o) * s * s;
    }
    for (int64_t t = 0; t < a.kernel * a.kernel; ++t)
      a.gpacked[t * total + at] += sum * value<T>(a.packed, t * total + at);
  }
}

template <class T>
bool wide(int64_t in_channels, int64_t out_channels, std::initializer_list<const void*> pointers) {
  uintptr_t bits = 0;
  for (const void* p : pointers) bits |= reinterpret_cast<uintptr_t>(p);
  return in_channels % Pack<T>::kCount == 0 && out_channels % Pack<T>::kCount == 0 && bits % 16 == 0;
}

dim3 grid_of(const Convolution& c, int64_t n) {
  return dim3(unsigned(n * c.tiles()), unsigned((c.columns + kTile - 1) / kTile));
}

template <class T>
gf_status run_forward(const gf_modulated_conv2d& a, cudaStream_t stream) {
  if (a.power) demodulate<T><<<unsigned((a.n * a.out_channels * kLanes + kBlock - 1) / kBlock), kBlock, 0, stream>>>(a);
  const int64_t height = a.up == 1 ? a.height : gf::transposed_size(a.height, a.kernel);
  const int64_t width = a.up == 1 ? a.width : gf::transposed_size(a.width, a.kernel);
  if (a.up == 2 && a.kernel == 1)  // one phase only is written
    cudaMemsetAsync(a.z, 0, size_t(a.n * height * width * a.out_channels) * sizeof(T), stream);
  const bool packs = wide<T>(a.in_channels, a.out_channels, {a.x, a.packed, a.style});
  for (int32_t phase = 0; phase < a.up * a.up; ++phase) {
    const int32_t py = phase / 2, px = phase % 2;
    if (py >= a.kernel || px >= a.kernel) continue;
    const Convolution c{a.x, a.packed, a.premodulated ? nullptr : a.style, a.height, a.width, a.in_channels,
                        a.out_channels,
                        a.up == 1 ? height : gf::phase_size(height, py), a.up == 1 ? width : gf::phase_size(width, px),
                        gf::forward_axis(a.kernel, a.up, py), gf::forward_axis(a.kernel, a.up, px), a.kernel, packs};
    forward<T><<<grid_of(c, a.n), kThreads, 0, stream>>>(a, c, height, width);
  }
  const int64_t pixels = 4 * a.n * a.height * a.width;
  if (a.up == 2)
    fir_forward<T><<<gf::blocks_for(pixels * a.out_channels, kBlock), kBlock, 0, stream>>>(a, height, width);
  return gf::launched("modulated_conv2d");
}

template <class T>
gf_status run_backward(const gf_modulated_conv2d_backward& a, cudaStream_t stream) {
  const int64_t pixels = a.up * a.up * a.height * a.width, taps = a.kernel * a.kernel;
  const auto zero = [&](float* p, int64_t count) {
    if (p) cudaMemsetAsync(p, 0, size_t(count) * sizeof(float), stream);
  };
  zero(a.gdemod, a.n * a.out_channels);
  zero(a.gpacked, taps * a.in_channels * a.out_channels);
  zero(a.gstyle, a.n * a.in_channels);
  zero(a.gbias, a.out_channels);
  zero(a.gnoise, a.n * pixels);

  const int64_t slices = (a.out_channels + kLanes - 1) / kLanes;
  const int64_t share = std::max<int64_t>(32, (a.n * pixels * slices + 8 * kFullGrid - 1) / (8 * kFullGrid));
  const dim3 grid(unsigned(a.n * ((pixels + share - 1) / share)), unsigned(slices));
  epilogue_backward<T><<<grid, kBlock, 0, stream>>>(a, pixels, share);

  const bool through_x = a.gx || (a.gstyle && !a.premodulated);
  const int64_t zh = a.up == 1 ? a.height : gf::transposed_size(a.height, a.kernel);
  const int64_t zw = a.up == 1 ? a.width : gf::transposed_size(a.width, a.kernel);
  const void* g = a.up == 1 ? a.g : a.gz;
  if (a.up == 2 && (through_x || a.gpacked))
    fir_backward<T><<<gf::blocks_for(a.n * zh * zw * a.out_channels, kBlock), kBlock, 0, stream>>>(a, zh, zw);
  const gf::ConvolutionAxis axis = gf::gradient_axis(a.kernel, a.up);
  const bool packs = wide<T>(a.in_channels, a.out_channels, {a.x, g, a.packed, a.style});
  if (through_x) {
    const Convolution c{g,        a.packed, nullptr, zh,   zw,       a.out_channels, a.in_channels,
                        a.height, a.width,  axis,    axis, a.kernel, packs};
    input_gradient<T><<<grid_of(c, a.n), kThreads, 0, stream>>>(a, c);
  }
  if (a.gpacked) {
    const int64_t tiles = ((a.in_channels + kTile - 1) / kTile) * ((a.out_channels + kTile - 1) / kTile);
    const int64_t blocks = a.n * ((a.height * a.width + Shared<T>::kDepth - 1) / Shared<T>::kDepth);
    const int64_t wanted = std::min(kMostSplits, std::max<int64_t>(1, 2 * kFullGrid / (tiles * taps)));
    const int64_t per_split = (blocks + wanted - 1) / wanted, splits = (blocks + per_split - 1) / per_split;
    const WeightGradient w{a.x, g, a.premodulated ? nullptr : a.style, a.gpacked, a.n, a.height, a.width, zh, zw,
                           a.in_channels, a.out_channels, axis, a.kernel, blocks, per_split, packs};
    weight_gradient<T><<<dim3(unsigned(tiles), unsigned(taps), unsigned(splits)), kThreads, 0, stream>>>(w);
  }
  if (a.power && a.gdemod && a.gstyle)
    style_through_demod<T><<<gf::blocks_for(a.n * a.in_channels, kBlock), kBlock, 0, stream>>>(a);
  if (a.power && a.gdemod && a.gpacked)
    weight_through_demod<T><<<gf::blocks_for(a.in_channels * a.out_channels, kBlock), kBlock, 0, stream>>>(a);
  return gf::launched("modulated_conv2d_backward");
}

}  // namespace

extern "C" GF_API gf_status gf_modulated_conv2d_weight_cuda(const gf_modulated_conv2d_weight* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_modulated_conv2d_weight_cuda"); !verdict.run) return verdict.status;
  const int blocks = gf::blocks_for(a->in_channels * a->out_channels, kBlock);
  GF_DISPATCH_DTYPE(a->dtype, T, (weight_layout<T><<<blocks, kBlock, 0, cudaStream_t(stream)>>>(*a)));
  return gf::launched("modulated_conv2d_weight");
}

extern "C" GF_API gf_status gf_modulated_conv2d_cuda(const gf_modulated_conv2d* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_modulated_conv2d_cuda"); !verdict.run) return verdict.status;
  if ((a->kernel != 1 && a->kernel != 3) || (a->up != 1 && a->up != 2))
    return gf_fail(GF_INVALID, "kernel %d with up %d is not known; use 1 or 3, 1 or 2", a->kernel, a->up);
  GF_DISPATCH_DTYPE(a->dtype, T, return run_forward<T>(*a, cudaStream_t(stream)));
  return GF_OK;
}

extern "C" GF_API gf_status gf_modulated_conv2d_backward_cuda(const gf_modulated_conv2d_backward* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_modulated_conv2d_backward_cuda"); !verdict.run) return verdict.status;
  if ((a->kernel != 1 && a->kernel != 3) || (a->up != 1 && a->up != 2))
    return gf_fail(GF_INVALID, "kernel %d with up %d is not known; use 1 or 3, 1 or 2", a->kernel, a->up);
  GF_DISPATCH_DTYPE(a->dtype, T, return run_backward<T>(*a, cudaStream_t(stream)));
  return GF_OK;
}
