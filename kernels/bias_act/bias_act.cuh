// Arithmetic of bias_act for one element, on the host and on the device.
#pragma once

#include "guide_fast/bias_act.h"
#include "host_device.h"

namespace gf {

// clamp(act(x) * gain)
template <class Float>
GF_HD Float activate(Float x, gf_activation activation, Float slope, Float gain, Float clamp) {
  const Float y = (activation == GF_LRELU && x < 0 ? x * slope : x) * gain;
  if (clamp < 0) return y;
  return y > clamp ? clamp : y < -clamp ? -clamp : y;  // a NaN passes
}

// dy/dx from the output y: its sign is that of x (gain is positive), its size says whether the clamp held it
template <class Float>
GF_HD Float activate_slope(Float y, gf_activation activation, Float slope, Float gain, Float clamp) {
  if (clamp >= 0 && (y >= clamp || y <= -clamp)) return 0;
  return activation == GF_LRELU && y < 0 ? slope * gain : gain;
}

}  // namespace gf
