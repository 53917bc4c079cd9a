// Device code of modulated_conv2d's implicit GEMMs: 64 x 64 tiles, tensor cores for half precision, FMA for fp32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <type_traits>

#include "element.h"
#include "modulated_conv2d.cuh"

namespace gf::conv {

constexpr int kThreads = 128;
constexpr int kBlocks = 3;         // per multiprocessor: 168 registers; left alone, ptxas stops at 128 and spills
constexpr int kTile = 64;          // rows and columns of a block's output
constexpr int kStage = kTile + 4;  // row of fp32 results in shared memory, padded

// What a type is in shared memory and in products.
template <class T>
struct Element;

template <>
struct Element<float> {
  using Native = float;
  static __device__ float get(float v) { return v; }
  static __device__ float put(float v) { return v; }
};
template <>
struct Element<half_bits> {
  using Native = __half;
  using Pair = __half2;
  static __device__ float get(half_bits v) { return __half2float(__ushort_as_half(v.bits)); }
  static __device__ half_bits put(float v) { return {__half_as_ushort(__float2half_rn(v))}; }
};
template <>
struct Element<bfloat16_bits> {
  using Native = __nv_bfloat16;
  using Pair = __nv_bfloat162;
  static __device__ float get(bfloat16_bits v) { return __bfloat162float(__ushort_as_bfloat16(v.bits)); }
  static __device__ bfloat16_bits put(float v) { return {__bfloat16_as_ushort(__float2bfloat16_rn(v))}; }
};

// 16 bytes of consecutive elements.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T v[kCount];
};

// `count` elements from `at`, zeros behind them; `wide`: 16-byte loads are allowed there.
template <class T>
__device__ Pack<T> load_pack(const T* at, int64_t count, bool wide) {
  Pack<T> pack;
  if (wide && count >= Pack<T>::kCount) {
    *reinterpret_cast<uint4*>(&pack) = __ldg(reinterpret_cast<const uint4*>(at));
    return pack;
  }
#pragma unroll
  for (int i = 0; i < Pack<T>::kCount; ++i) pack.v[i] = i < count ? at[i] : T{};
  return pack;
}

// Element by element, rounded once to T.
template <class T>
__device__ Pack<T> times(Pack<T> a, const Pack<T>& b) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < Pack<T>::kCount; ++i) a.v[i] *= b.v[i];
  } else {
    using Pair = typename Element<T>::Pair;
    Pair* x = reinterpret_cast<Pair*>(a.v);
    const Pair* y = reinterpret_cast<const Pair*>(b.v);
#pragma unroll
    for (int i = 0; i < Pack<T>::kCount / 2; ++i) x[i] = __hmul2(x[i], y[i]);
  }
  return a;
}

// Shared memory of a block: operands while it sums, fp32 results afterwards.
template <class T>
struct Shared {
  static constexpr int kDepth = sizeof(T) == 4 ? 16 : 32;       // of one step
  static constexpr int kNarrow = kDepth + Pack<T>::kCount;      // row of a [64, depth] operand, padded
  static constexpr int kWide = kTile + Pack<T>::kCount;         // row of a [depth, 64] operand, padded
  static constexpr int kSize = kTile * kNarrow > kDepth * kWide ? kTile * kNarrow : kDepth * kWide;
  union {
    struct {
      alignas(32) T a[kSize];
      alignas(32) T b[kSize];
    };
    alignas(32) float result[kTile * kStage];
  };
};

// Sums of a block's tile; ATurned: a lies as [depth, rows], else [rows, depth]; BTurned: b as [columns, depth].
template <class T, bool ATurned, bool BTurned>
struct Sums {
  using S = Shared<T>;
  using Native = typename Element<T>::Native;
  template <bool Turned>
  using Layout = std::conditional_t<Turned, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> acc[2][2];  // a warp has 32 x 32

  __device__ Sums() {
    for (auto& row : acc)
      for (auto& f : row) nvcuda::wmma::fill_fragment(f, 0.f);
  }

  __device__ void step(const S& shared) {
    using namespace nvcuda::wmma;
    constexpr int kA = ATurned ? S::kWide : S::kNarrow, kB = BTurned ? S::kNarrow : S::kWide;
    const Native* a = reinterpret_cast<const Native*>(shared.a);
    const Native* b = reinterpret_cast<const Native*>(shared.b);
    const int warp = threadIdx.x / 32, row = warp / 2 * 32, column = warp % 2 * 32;
#pragma unroll
    for (int k = 0; k < S::kDepth; k += 16) {
      fragment<matrix_a, 16, 16, 16, Native, Layout<ATurned>> fa[2];
      fragment<matrix_b, 16, 16, 16, Native, Layout<BTurned>> fb[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = row + 16 * i, c = column + 16 * i;
        load_matrix_sync(fa[i], a + (ATurned ? k * kA + r : r * kA + k), kA);
        load_matrix_sync(fb[i], b + (BTurned ? c * kB + k : k * kB + c), kB);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) mma_sync(acc[i][j], fa[i], fb[j], acc[i][j]);
    }
  }

  __device__ void store(float* result) const {
    const int warp = threadIdx.x / 32, row = warp / 2 * 32, column = warp % 2 * 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        nvcuda::wmma::store_matrix_sync(result + (row + 16 * i) * kStage + column + 16 * j, acc[i][j], kStage,
                                        nvcuda::wmma::mem_row_major);
  }
};

template <bool ATurned, bool BTurned>
struct Sums<float, ATurned, BTurned> {  // a thread has 8 x 4
  using S = Shared<float>;
  float acc[8][4] = {};

  __device__ void step(const S& shared) {
    const int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int k = 0; k < S::kDepth; ++k) {
      float a[8], b[4];
#pragma unroll
      for (int i = 0; i < 8; ++i) a[i] = shared.a[ATurned ? k * S::kWide + row + i : (row + i) * S::kNarrow + k];
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = shared.b[BTurned ? (column + j) * S::kNarrow + k : k * S::kWide + column + j];
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] += a[i] * b[j];
    }
  }

  __device__ void store(float* result) const {
    const int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) result[(row + i) * kStage + column + j] = acc[i][j];
  }
};

// One convolution: a [n, height, width, depth] -> rows x columns of each image.
struct Convolution {
  const void* a;
  const void* packed;  // [kernel * kernel, in_channels, out_channels]
  const void* style;   // [n, depth], NULL: a is taken as it is
  int64_t height, width, depth, columns;
  int64_t rows_y, rows_x;
  ConvolutionAxis y, x;
  int32_t kernel;
  bool wide;  // 16-byte loads

  __host__ __device__ int64_t tiles() const { return (rows_y * rows_x + kTile - 1) / kTile; }
};

// Sums of one tile into shared.result. Turned: depth are the output channels (the gradient of the input).
template <class T, bool Turned>
__device__ void convolve(const Convolution& c, int64_t image, int64_t first_row, int64_t first_column,
                         Shared<T>& shared) {
  using S = Shared<T>;
  using P = Pack<T>;
  constexpr int kPerRow = S::kDepth / P::kCount, kPerWide = kTile / P::kCount;
  Sums<T, false, Turned> sums;
  const T* a = static_cast<const T*>(c.a) + image * c.height * c.width * c.depth;
  const T* packed = static_cast<const T*>(c.packed);
  const T* style = c.style ? static_cast<const T*>(c.style) + image * c.depth : nullptr;
  const int a_depth = threadIdx.x % kPerRow * P::kCount;
  int32_t row_y[2], row_x[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = first_row + threadIdx.x / kPerRow + i * (kThreads / kPerRow);
    row_y[i] = row < c.rows_y * c.rows_x ? int32_t(row / c.rows_x) : -(1 << 28);  // far outside
    row_x[i] = int32_t(row % c.rows_x);
  }
  P pa[2], pb[2], ps{};
  const int32_t blocks = int32_t((c.depth + S::kDepth - 1) / S::kDepth), steps = c.y.taps * c.x.taps * blocks;

  const auto fetch = [&](int32_t step) {
    const int32_t tap = step / blocks, ty = tap / c.x.taps, tx = tap % c.x.taps, k = step % blocks * S::kDepth;
    const int64_t weight = int64_t(c.y.weight(ty)) * c.kernel + c.x.weight(tx);
    if (style) ps = load_pack(style + k + a_depth, c.depth - k - a_depth, c.wide);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int32_t iy = c.y.input(row_y[i], ty), ix = c.x.input(row_x[i], tx);
      const bool inside = iy >= 0 && iy < c.height && ix >= 0 && ix < c.width;
      const int64_t left = inside ? c.depth - k - a_depth : 0;
      pa[i] = load_pack(a + (iy * c.width + ix) * c.depth + (k + a_depth), left, c.wide);
      const int at = threadIdx.x + i * kThreads;
      if constexpr (Turned) {  // [columns, depth]
        const int64_t column = first_column + at / kPerRow;
        const int64_t there = column < c.columns ? c.depth - k - a_depth : 0;
        pb[i] = load_pack(packed + (weight * c.columns + column) * c.depth + (k + a_depth), there, c.wide);
      } else {  // [depth, columns]
        const int64_t depth = k + at / kPerWide, column = first_column + at % kPerWide * P::kCount;
        const int64_t there = depth < c.depth ? c.columns - column : 0;
        pb[i] = load_pack(packed + (weight * c.depth + depth) * c.columns + column, there, c.wide);
      }
    }
  };

  fetch(0);
  for (int32_t step = 0; step < steps; ++step) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = threadIdx.x + i * kThreads;
      *reinterpret_cast<P*>(shared.a + at / kPerRow * S::kNarrow + a_depth) = style ? times(pa[i], ps) : pa[i];
      const int b = Turned ? at / kPerRow * S::kNarrow + a_depth : at / kPerWide * S::kWide + at % kPerWide * P::kCount;
      *reinterpret_cast<P*>(shared.b + b) = pb[i];
    }
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1);  // while the products run
    sums.step(shared);
  }
  __syncthreads();
  sums.store(shared.result);
  __syncthreads();
}

// The weight gradient of one tap: rows are input channels, columns output channels, the sum runs over pixels of x.
struct WeightGradient {
  const void* x;      // [n, height, width, in_channels]
  const void* g;      // [n, g_height, g_width, out_channels]
  const void* style;  // [n, in_channels], NULL: x already carries it
  float* gpacked;     // [kernel * kernel, in_channels, out_channels], added to
  int64_t n, height, width, g_height, g_width, in_channels, out_channels;
  ConvolutionAxis axis;  // where in g a pixel of x is used
  int32_t kernel;
  int64_t blocks, per_split;  // of kDepth pixels that never cross an image
  bool wide;
};

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) weight_gradient(WeightGradient w) {
  using S = Shared<T>;
  using P = Pack<T>;
  constexpr int kPerWide = kTile / P::kCount;
  __shared__ S shared;
  Sums<T, true, false> sums;
  const int64_t columns = (w.out_channels + kTile - 1) / kTile;
  const int64_t first_row = blockIdx.x / columns * kTile, first_column = blockIdx.x % columns * kTile;
  const int32_t tap = blockIdx.y, ty = tap / w.kernel, tx = tap % w.kernel;
  const int64_t pixels = w.height * w.width, per_image = (pixels + S::kDepth - 1) / S::kDepth;
  const int64_t begin = blockIdx.z * w.per_split, stop = begin + w.per_split, end = stop < w.blocks ? stop : w.blocks;
  const int channel = threadIdx.x % kPerWide * P::kCount;
  P px[2], pg[2], ps{};

  const auto fetch = [&](int64_t block) {
    const int64_t image = block / per_image;
    if (w.style)
      ps = load_pack(static_cast<const T*>(w.style) + image * w.in_channels + first_row + channel,
                     w.in_channels - first_row - channel, w.wide);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t pixel = block % per_image * S::kDepth + (threadIdx.x + i * kThreads) / kPerWide;
      const int64_t gy = w.axis.input(int32_t(pixel / w.width), ty), gx = w.axis.input(int32_t(pixel % w.width), tx);
      const bool valid = pixel < pixels, inside = valid && gy >= 0 && gy < w.g_height && gx >= 0 && gx < w.g_width;
      px[i] = load_pack(static_cast<const T*>(w.x) + (image * pixels + pixel) * w.in_channels + first_row + channel,
                        valid ? w.in_channels - first_row - channel : 0, w.wide);
      pg[i] = load_pack(static_cast<const T*>(w.g) + ((image * w.g_height + gy) * w.g_width + gx) * w.out_channels +
                            first_column + channel,
                        inside ? w.out_channels - first_column - channel : 0, w.wide);
    }
  };

  if (begin < end) fetch(begin);
  for (int64_t block = begin; block < end; ++block) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = (threadIdx.x + i * kThreads) / kPerWide * S::kWide + channel;
      *reinterpret_cast<P*>(shared.a + at) = w.style ? times(px[i], ps) : px[i];
      *reinterpret_cast<P*>(shared.b + at) = pg[i];
    }
    __syncthreads();
    if (block + 1 < end) fetch(block + 1);
    sums.step(shared);
  }
  __syncthreads();
  sums.store(shared.result);
  __syncthreads();
  for (int at = threadIdx.x; at < kTile * kTile; at += kThreads) {
    const int64_t row = first_row + at / kTile, column = first_column + at % kTile;
    if (row < w.in_channels && column < w.out_channels)
      atomicAdd(w.gpacked + (tap * w.in_channels + row) * w.out_channels + column,
                shared.result[at / kTile * kStage + at % kTile]);
  }
}

}  // namespace gf::conv
