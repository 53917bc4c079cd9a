// CUDA launchers of bias_act: one pass over the elements, memory-bound.
#include <cuda_runtime.h>

#include "bias_act.cuh"
#include "cuda_launch.h"
#include "element.h"

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void forward(gf_bias_act a) {
  const int64_t total = a.outer * a.channels * a.inner;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < total; i += stride) {
    float x = gf::load(static_cast<const T*>(a.x)[i]);
    if (a.bias) x += gf::load(static_cast<const T*>(a.bias)[i / a.inner % a.channels]);
    gf::store(static_cast<T*>(a.y) + i, gf::activate(x, a.activation, a.slope, a.gain, a.clamp));
  }
}

template <class T>
__global__ void backward(gf_bias_act_backward a) {
  const int64_t total = a.outer * a.channels * a.inner;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < total; i += stride) {
    const float y = gf::load(static_cast<const T*>(a.y)[i]);
    const float gy = gf::load(static_cast<const T*>(a.gy)[i]);
    gf::store(static_cast<T*>(a.gx) + i, gy * gf::activate_slope(y, a.activation, a.slope, a.gain, a.clamp));
  }
}

}  // namespace

extern "C" GF_API gf_status gf_bias_act_cuda(const gf_bias_act* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_bias_act_cuda"); !verdict.run) return verdict.status;
  const int blocks = gf::blocks_for(a->outer * a->channels * a->inner, kThreads);
  if (blocks == 0) return GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, (forward<T><<<blocks, kThreads, 0, cudaStream_t(stream)>>>(*a)));
  return gf::launched("bias_act");
}

extern "C" GF_API gf_status gf_bias_act_backward_cuda(const gf_bias_act_backward* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_bias_act_backward_cuda"); !verdict.run) return verdict.status;
  const int blocks = gf::blocks_for(a->outer * a->channels * a->inner, kThreads);
  if (blocks == 0) return GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, (backward<T><<<blocks, kThreads, 0, cudaStream_t(stream)>>>(*a)));
  return gf::launched("bias_act_backward");
}
