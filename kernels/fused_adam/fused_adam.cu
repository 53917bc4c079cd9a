// CUDA launcher of fused_adam: a block takes a chunk of one tensor; all tensors go in one launch.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "fused_adam.cuh"

namespace {

constexpr int kThreads = 256;

// This thread's share of elements [begin, end) of one tensor.
struct Chunk {
  const gf_fused_adam& a;
  int tensor;
  int64_t begin, end;

  template <class Gradient, class Copy, bool kCopies>
  __device__ void run() const {
    const gf::adam_factors factors = gf::adam_factors_of(a, tensor);
    float* parameter = a.parameter[tensor];
    const Gradient* gradient = static_cast<const Gradient*>(a.gradient[tensor]);
    float* exp_avg = a.exp_avg[tensor];
    float* exp_avg_sq = a.exp_avg_sq[tensor];
    Copy* copy = kCopies ? static_cast<Copy*>(a.copy[tensor]) : nullptr;
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      float m = exp_avg[i], v = exp_avg_sq[i];
      const float moved = gf::adam(factors, parameter[i], gf::load(gradient[i]), m, v);
      parameter[i] = moved;
      exp_avg[i] = m;
      exp_avg_sq[i] = v;
      if (kCopies) gf::store(copy + i, moved);
    }
  }
};

__global__ void __launch_bounds__(kThreads) step(const __grid_constant__ gf_fused_adam a) {
  for (int64_t i = blockIdx.x; i < a.chunks; i += gridDim.x) {
    const int tensor = a.chunk_tensor[i];
    const int64_t begin = a.chunk_start[i];
    const int64_t end = begin + a.chunk_size < a.size[tensor] ? begin + a.chunk_size : a.size[tensor];
    gf::adam_dispatch(gf::adam_kind_of(a, tensor), Chunk{a, tensor, begin, end});
  }
}

}  // namespace

extern "C" GF_API gf_status gf_fused_adam_cuda(const gf_fused_adam* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_fused_adam_cuda"); !verdict.run) return verdict.status;
  if (!gf::adam_dtypes_are_known(*a))
    return gf_fail(GF_INVALID, "dtypes %d, %d are not known here; use float32, float16 or bfloat16",
                   int(a->gradient_dtype), int(a->copy_dtype));
  const int blocks = gf::blocks_for(a->chunks, 1);
  if (blocks == 0) return GF_OK;
  step<<<blocks, kThreads, 0, cudaStream_t(stream)>>>(*a);
  return gf::launched("fused_adam");
}
