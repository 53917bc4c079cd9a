// A 64x64 block of a matrix product: operands that a job makes on the fly, tensor cores for halves, fp32 sums.
#pragma once

#include <mma.h>

#include "cuda_launch.h"
#include "scratch.cuh"
#include "separable_conv2d.cuh"
#include "vector_memory.cuh"

namespace gf {
namespace {

constexpr int kBlock = 64, kDepth = 32;  // rows and columns of a block, depth of a step
constexpr int kProductThreads = 128;

// Layout of an image tensor.
struct Strides {
  int64_t pixel, channel;
};
inline Strides strides_of(bool nhwc, int64_t channels, int64_t pixels) {
  return nhwc ? Strides{channels, 1} : Strides{1, pixels};
}

template <class T>
struct Operand {
  using type = float;
};
template <>
struct Operand<half_bits> {
  using type = __half;
};
template <>
struct Operand<bfloat16_bits> {
  using type = __nv_bfloat16;
};

// C [64, 64] += A [64, 32] B^T, B [64, 32]: halves in tensor cores, a warp 32x32 of it
template <class T>
struct Product {
  using Element = typename Operand<T>::type;
  static constexpr int kStride = kDepth + 8;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums[2][2];

  __device__ Product() {
    for (auto& row : sums)
      for (auto& sum : row) nvcuda::wmma::fill_fragment(sum, 0.f);
  }
  __device__ static int row() { return threadIdx.x / 64 * 32; }
  __device__ static int column() { return threadIdx.x / 32 % 2 * 32; }

  __device__ void step(const T* a_bits, const T* b_bits) {
    using namespace nvcuda::wmma;
    const Element* a = reinterpret_cast<const Element*>(a_bits);
    const Element* b = reinterpret_cast<const Element*>(b_bits);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      fragment<matrix_a, 16, 16, 16, Element, row_major> left[2];
      fragment<matrix_b, 16, 16, 16, Element, col_major> right[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrix_sync(left[i], a + (row() + 16 * i) * kStride + k, kStride);
        load_matrix_sync(right[i], b + (column() + 16 * i) * kStride + k, kStride);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) mma_sync(sums[i][j], left[i], right[j], sums[i][j]);
    }
  }

  __device__ void store(float* c, int stride) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        nvcuda::wmma::store_matrix_sync(c + (row() + 16 * i) * stride + column() + 16 * j, sums[i][j], stride,
                                        nvcuda::wmma::mem_row_major);
  }
};

// the same for fp32 in registers, 8 rows by 4 columns to a thread
template <>
struct Product<float> {
  static constexpr int kStride = kDepth + 1;
  float sums[8][4] = {};

  __device__ void step(const float* a, const float* b) {
    const int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16;
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      float left[8], right[4];
#pragma unroll
      for (int i = 0; i < 8; ++i) left[i] = a[(row + i) * kStride + k];
#pragma unroll
      for (int j = 0; j < 4; ++j) right[j] = b[(column + 16 * j) * kStride + k];
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] += left[i] * right[j];
    }
  }

  __device__ void store(float* c, int stride) {
    const int row = threadIdx.x / 16 * 8, column = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) c[(row + i) * stride + column + 16 * j] = sums[i][j];
  }
};

constexpr int kResult = kBlock + 4;  // stride of a row of C in shared memory

// Job: begin(), depth(), taps(taps, k), left(A, taps, k), right(B, taps, k), finish(C)
template <class T, class Job>
__global__ void __launch_bounds__(kProductThreads, 3) product_kernel(Job given) {
  constexpr int kStride = Product<T>::kStride;
  __shared__ __align__(32) T a[kBlock * kStride];
  __shared__ __align__(32) T b[kBlock * kStride];
  __shared__ __align__(32) float c[kBlock * kResult];
  __shared__ float taps[9 * kBlock];
  Job job = given;
  job.begin();
  Product<T> product;
  for (int64_t k = 0; k < job.depth(); k += kDepth) {
    job.taps(taps, k);
    __syncthreads();
    job.left(a, taps, k);
    job.right(b, taps, k);
    __syncthreads();
    product.step(a, b);
    __syncthreads();
  }
  product.store(c, kResult);
  __syncthreads();
  job.finish(c);
}

// What the jobs know about the convolved image; N channels come in one load.
template <class T, int N>
struct Convolved {
  const T* x;  // of one image
  const T* depthwise;
  const T* style;  // of that image
  int height, width, channels;
  Strides at;

  // style * depthwise of `count` channels from `first`, [9, kBlock]; a pointwise convolution keeps the centre
  __device__ void taps(float* taps, int64_t first, int count) const {
    for (int i = threadIdx.x; i < 9 * count; i += kProductThreads) {
      const int64_t c = first + i % count;
      const int k = i / count;
      const float tap = depthwise && c < channels ? widen(depthwise[c * 9 + k]) : k == 4 ? 1.f : 0.f;
      taps[k * kBlock + i % count] = c < channels ? tap * widen(style[c]) : 0.f;
    }
  }

  // v of channels c to c + N at pixel p, `tap` the first of them in the table
  __device__ void value(const float* taps, int64_t p, int64_t c, int tap, float (&v)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = 0;
    if (c >= channels || p >= int64_t(height) * width) return;
    const int row = int(p / width), column = int(p % width);
    const T* here = x + p * at.pixel + c * at.channel;
    // one load stands below for a pointwise convolution
    for (int k = depthwise ? 0 : 4; k < (depthwise ? 9 : 5); ++k) {
      if (!window_inside(row, column, k, height, width)) continue;
      float values[N];
      load_vector(here + window_offset(k, width) * at.pixel, values);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += taps[k * kBlock + tap + i] * values[i];
    }
  }
};

inline size_t size_of(gf_dtype dtype) { return dtype == GF_FLOAT32 ? 4 : 2; }

template <class T>
bool vectors_fit(bool nhwc, int64_t channels, const void* a) {
  return nhwc && channels % kVector<T> == 0 && aligned(a);
}

}  // namespace
}  // namespace gf
