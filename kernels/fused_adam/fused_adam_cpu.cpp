// Native CPU path of fused_adam: one pass over a chunk where eager PyTorch takes eight.
#include <algorithm>

#include "dispatch_dtype.h"
#include "element.h"
#include "fused_adam.cuh"
#include "isa.h"
#include "parallel.h"

namespace {

// No two of the arrays overlap: the compiler may turn the loop into vectors.
template <class Gradient, class Copy>
void chunk(const gf_fused_adam& shared, int64_t count, float* __restrict parameter,
           const Gradient* __restrict gradient, float* __restrict exp_avg, float* __restrict exp_avg_sq,
           Copy* __restrict copy) {
  const gf_fused_adam a = shared;
  for (int64_t i = 0; i < count; ++i) {
    float m = exp_avg[i], v = exp_avg_sq[i];
    parameter[i] = gf::adam(a, parameter[i], gf::load(gradient[i]), m, v);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
  }
  if (copy)
    for (int64_t i = 0; i < count; ++i) gf::store(copy + i, parameter[i]);
}

template <class Gradient, class Copy>
void step(const gf_fused_adam& a) {
  gf::parallel_for(0, a.chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int tensor = a.chunk_tensor[i];
      const int64_t first = a.chunk_start[i];
      chunk(a, std::min(a.chunk_size, a.size[tensor] - first), a.parameter[tensor] + first,
            static_cast<const Gradient*>(a.gradient[tensor]) + first, a.exp_avg[tensor] + first,
            a.exp_avg_sq[tensor] + first, a.copy ? static_cast<Copy*>(a.copy[tensor]) + first : nullptr);
    }
  });
}

template <class Gradient>
gf_status with_copies(const gf_fused_adam& a) {
  GF_DISPATCH_DTYPE(a.copy_dtype, Copy, (step<Gradient, Copy>(a)));
  return GF_OK;
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_fused_adam_cpu)(const gf_fused_adam* a) {
  GF_DISPATCH_DTYPE(a->gradient_dtype, T, return with_copies<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_fused_adam_cpu, gf_fused_adam)
