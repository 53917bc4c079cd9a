// CUDA launcher of separable_conv2d, forward: depthwise prologue, pointwise product, epilogue in one kernel.
#include <cuda_runtime.h>

#include "guide_fast/haar.h"
#include "separable_conv2d_product.cuh"

namespace gf {
namespace {

template <class T, int N>
struct Forward {
  gf_separable_conv2d a;
  Convolved<T, N> image;
  int64_t n, first_pixel, first_output, pixels;

  __device__ void begin() {
    n = blockIdx.z, first_pixel = int64_t(blockIdx.x) * kBlock, first_output = int64_t(blockIdx.y) * kBlock;
    pixels = a.h * a.w;
    image.x += n * pixels * a.inputs;
    image.style += n * a.inputs;
  }
  __device__ int64_t depth() const { return a.inputs; }
  __device__ void taps(float* taps, int64_t k) const { image.taps(taps, k, kDepth); }

  __device__ void left(T* to, const float* taps, int64_t k) const {
    for (int i = threadIdx.x; i < kBlock * kDepth / N; i += kProductThreads) {
      // neighbouring threads take what is neighbour in memory
      const int pixel = a.nhwc ? i / (kDepth / N) : i % kBlock, c = (a.nhwc ? i % (kDepth / N) : i / kBlock) * N;
      float v[N];
      image.value(taps, first_pixel + pixel, k + c, c, v);
#pragma unroll
      for (int j = 0; j < N; ++j) narrow(to + pixel * Product<T>::kStride + c + j, v[j]);
    }
  }
  __device__ void right(T* to, const float*, int64_t k) const {
    const T* pointwise = static_cast<const T*>(a.pointwise);
    for (int i = threadIdx.x; i < kBlock * kDepth; i += kProductThreads) {
      const int64_t o = first_output + i / kDepth, c = k + i % kDepth;
      const float w = o < a.outputs && c < a.inputs ? widen(pointwise[o * a.inputs + c]) : 0.f;
      narrow(to + i / kDepth * Product<T>::kStride + i % kDepth, w);
    }
  }

  __device__ void finish(const float* sums) const {
    const Strides at = a.nhwc ? Strides{a.outputs, 1} : Strides{1, pixels};
    T* y = static_cast<T*>(a.y) + n * pixels * a.outputs;
    const T* noise = static_cast<const T*>(a.noise);
    if (noise && a.noise_n > 1) noise += n * pixels;
    for (int i = threadIdx.x; i < kBlock * kBlock; i += kProductThreads) {
      const int row = a.nhwc ? i / kBlock : i % kBlock, column = a.nhwc ? i % kBlock : i / kBlock;
      const int64_t p = first_pixel + row, o = first_output + column;
      if (p >= pixels || o >= a.outputs) continue;
      const float next = a.next_style ? widen(static_cast<const T*>(a.next_style)[n * a.outputs + o]) : 1.f;
      const float bias = a.bias ? widen(static_cast<const T*>(a.bias)[o]) : 0.f;
      const float value = separable_epilogue(sums[row * kResult + column], noise ? widen(noise[p]) : 0.f, bias, next, a);
      narrow(y + p * at.pixel + o * at.channel, value);
    }
  }
};

template <class T, int N>
void forward(const gf_separable_conv2d& a, cudaStream_t stream) {
  const int64_t pixels = a.h * a.w;
  Forward<T, N> job;
  job.a = a;
  job.image = {static_cast<const T*>(a.x), static_cast<const T*>(a.depthwise), static_cast<const T*>(a.style),
               int(a.h), int(a.w), int(a.inputs), strides_of(a.nhwc, a.inputs, pixels)};
  const dim3 grid((pixels + kBlock - 1) / kBlock, (a.outputs + kBlock - 1) / kBlock, a.n);
  product_kernel<T, Forward<T, N>><<<grid, kProductThreads, 0, stream>>>(job);
}

}  // namespace
}  // namespace gf

extern "C" GF_API gf_status gf_separable_conv2d_cuda(const gf_separable_conv2d* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_separable_conv2d_cuda"); !verdict.run) return verdict.status;
  if (a->n * a->h * a->w * a->outputs == 0) return GF_OK;
  if (a->haar_style) {  // through memory: the window of a block would repeat most of the wavelet
    gf::Scratch u(a->n * a->inputs * a->h * a->w * gf::size_of(a->dtype), cudaStream_t(stream));
    if (u.failed()) return gf_fail(GF_CUDA_ERROR, "separable_conv2d finds no memory for the up-sampled image");
    const gf_haar up{a->dtype, a->nhwc, a->n, a->inputs, a->h / 2, a->w / 2, a->x, a->haar_style, u.as<void>()};
    if (const gf_status status = gf_haar_cuda(&up, stream); status != GF_OK) return status;
    gf_separable_conv2d plain = *a;
    plain.x = u.as<void>(), plain.haar_style = nullptr;
    return gf_separable_conv2d_cuda(&plain, stream);
  }
  GF_DISPATCH_DTYPE(a->dtype, T, {
    if (gf::vectors_fit<T>(a->nhwc, a->inputs, a->x))
      gf::forward<T, gf::kVector<T>>(*a, cudaStream_t(stream));
    else
      gf::forward<T, 1>(*a, cudaStream_t(stream));
  });
  return gf::launched("separable_conv2d");
}
