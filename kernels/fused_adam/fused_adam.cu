// CUDA launcher of fused_adam: a block takes a chunk of one tensor; all tensors go in one launch.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "element.h"
#include "fused_adam.cuh"

namespace {

constexpr int kThreads = 256;

template <class Gradient, class Copy>
__global__ void __launch_bounds__(kThreads) step(const __grid_constant__ gf_fused_adam a) {
  for (int64_t chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    const int tensor = a.chunk_tensor[chunk];
    const int64_t begin = a.chunk_start[chunk];
    const int64_t end = begin + a.chunk_size < a.size[tensor] ? begin + a.chunk_size : a.size[tensor];
    float* parameter = a.parameter[tensor];
    const Gradient* gradient = static_cast<const Gradient*>(a.gradient[tensor]);
    float* exp_avg = a.exp_avg[tensor];
    float* exp_avg_sq = a.exp_avg_sq[tensor];
    Copy* copy = a.copy ? static_cast<Copy*>(a.copy[tensor]) : nullptr;
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      float m = exp_avg[i], v = exp_avg_sq[i];
      const float moved = gf::adam(a, parameter[i], gf::load(gradient[i]), m, v);
      parameter[i] = moved;
      exp_avg[i] = m;
      exp_avg_sq[i] = v;
      if (copy) gf::store(copy + i, moved);
    }
  }
}

template <class Gradient>
gf_status launch(const gf_fused_adam& a, int blocks, cudaStream_t stream) {
  GF_DISPATCH_DTYPE(a.copy_dtype, Copy, (step<Gradient, Copy><<<blocks, kThreads, 0, stream>>>(a)));
  return gf::launched("fused_adam");
}

}  // namespace

extern "C" GF_API gf_status gf_fused_adam_cuda(const gf_fused_adam* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_fused_adam_cuda"); !verdict.run) return verdict.status;
  const int blocks = gf::blocks_for(a->chunks, 1);
  if (blocks == 0) return GF_OK;
  GF_DISPATCH_DTYPE(a->gradient_dtype, T, return launch<T>(*a, blocks, cudaStream_t(stream)));
  return GF_OK;
}
