// Arithmetic of fused_adam for one element, with what a tensor's row of the table says, on the host and on the device.
#pragma once

#include <cmath>

#include "element.h"
#include "guide_fast/fused_adam.h"
#include "host_device.h"

namespace gf {

// What the elements of one tensor share.
struct adam_factors {
  float one_minus_beta1, beta2, one_minus_beta2, step_size, bias2_rsqrt, eps, weight_decay;
};

GF_HD adam_factors adam_factors_of(const gf_fused_adam& a, int tensor) {
  if (!a.setting)
    return {a.one_minus_beta1, a.beta2, a.one_minus_beta2, a.step_size, a.bias2_rsqrt, a.eps, a.weight_decay};
  const float* f = a.factors + a.setting[tensor] * 7;
  return {f[0], f[1], f[2], f[3], f[4], f[5], f[6]};
}

// torch.optim.Adam's operations in its order, one division made a multiplication; writes the moments, returns the new parameter.
GF_HD float adam(const adam_factors& f, float parameter, float gradient, float& exp_avg, float& exp_avg_sq) {
  gradient += f.weight_decay * parameter;
  exp_avg += f.one_minus_beta1 * (gradient - exp_avg);
  exp_avg_sq = exp_avg_sq * f.beta2 + f.one_minus_beta2 * gradient * gradient;
  return parameter - f.step_size * (exp_avg / (sqrtf(exp_avg_sq) * f.bias2_rsqrt + f.eps));
}

// Gradient's gf_dtype + 4 * (copy's gf_dtype + 1, 0 without a copy) of a tensor.
GF_HD int adam_kind_of(const gf_fused_adam& a, int tensor) {
  return a.kind ? int(a.kind[tensor]) : int(a.gradient_dtype) + (a.copy ? 4 * (int(a.copy_dtype) + 1) : 0);
}

template <class Gradient, class Chunk>
GF_HD void adam_copy_dispatch(int kind, const Chunk& chunk) {
  switch (kind / 4) {
    case 0: return chunk.template run<Gradient, float, false>();
    case 1 + GF_FLOAT32: return chunk.template run<Gradient, float, true>();
    case 1 + GF_FLOAT16: return chunk.template run<Gradient, half_bits, true>();
    case 1 + GF_BFLOAT16: return chunk.template run<Gradient, bfloat16_bits, true>();
    default: return;
  }
}

// chunk.run<Gradient, Copy, with a copy>() for the element types that `kind` says.
template <class Chunk>
GF_HD void adam_dispatch(int kind, const Chunk& chunk) {
  switch (kind % 4) {
    case GF_FLOAT32: return adam_copy_dispatch<float>(kind, chunk);
    case GF_FLOAT16: return adam_copy_dispatch<half_bits>(kind, chunk);
    case GF_BFLOAT16: return adam_copy_dispatch<bfloat16_bits>(kind, chunk);
    default: return;
  }
}

// Whether the dtypes that hold for every tensor are known; a table's are its writer's to keep.
inline bool adam_dtypes_are_known(const gf_fused_adam& a) {
  return a.kind || (a.gradient_dtype <= GF_BFLOAT16 && (!a.copy || a.copy_dtype <= GF_BFLOAT16));
}

}  // namespace gf
