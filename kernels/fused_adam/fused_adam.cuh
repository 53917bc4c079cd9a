// Arithmetic of fused_adam for one element, on the host and on the device.
#pragma once

#include <cmath>

#include "guide_fast/fused_adam.h"
#include "host_device.h"

namespace gf {

// torch.optim.Adam's operations in its order, one division made a multiplication; writes the moments, returns the new parameter.
GF_HD float adam(const gf_fused_adam& a, float parameter, float gradient, float& exp_avg, float& exp_avg_sq) {
  gradient += a.weight_decay * parameter;
  exp_avg += a.one_minus_beta1 * (gradient - exp_avg);
  exp_avg_sq = exp_avg_sq * a.beta2 + a.one_minus_beta2 * gradient * gradient;
  return parameter - a.step_size * (exp_avg / (sqrtf(exp_avg_sq) * a.bias2_rsqrt + a.eps));
}

}  // namespace gf
