// Native CPU path of fused_adam: one pass over a chunk where eager PyTorch takes eight.
#include <algorithm>

#include "fused_adam.cuh"
#include "isa.h"
#include "parallel.h"

namespace {

// No two of the arrays overlap: the compiler may turn the loop into vectors.
template <class Gradient>
void move(const gf::adam_factors factors, int64_t count, float* __restrict parameter,
          const Gradient* __restrict gradient, float* __restrict exp_avg, float* __restrict exp_avg_sq) {
  for (int64_t i = 0; i < count; ++i) {
    float m = exp_avg[i], v = exp_avg_sq[i];
    parameter[i] = gf::adam(factors, parameter[i], gf::load(gradient[i]), m, v);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
  }
}

// Elements of one tensor from `first` on.
struct Chunk {
  const gf_fused_adam& a;
  int tensor;
  int64_t first;

  template <class Gradient, class Copy, bool kCopies>
  void run() const {
    const int64_t count = std::min(a.chunk_size, a.size[tensor] - first);
    float* parameter = a.parameter[tensor] + first;
    move(gf::adam_factors_of(a, tensor), count, parameter, static_cast<const Gradient*>(a.gradient[tensor]) + first,
         a.exp_avg[tensor] + first, a.exp_avg_sq[tensor] + first);
    if (!kCopies) return;
    Copy* copy = static_cast<Copy*>(a.copy[tensor]) + first;
    for (int64_t i = 0; i < count; ++i) gf::store(copy + i, parameter[i]);
  }
};

}  // namespace

extern "C" gf_status GF_LOCAL(gf_fused_adam_cpu)(const gf_fused_adam* a) {
  if (!gf::adam_dtypes_are_known(*a))
    return gf_fail(GF_INVALID, "dtypes %d, %d are not known here; use float32, float16 or bfloat16",
                   int(a->gradient_dtype), int(a->copy_dtype));
  gf::parallel_for(0, a->chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int tensor = a->chunk_tensor[i];
      gf::adam_dispatch(gf::adam_kind_of(*a, tensor), Chunk{*a, tensor, a->chunk_start[i]});
    }
  });
  return GF_OK;
}
GF_CPU_ENTRY(gf_fused_adam_cpu, gf_fused_adam)
