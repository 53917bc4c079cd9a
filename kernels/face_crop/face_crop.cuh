// Arithmetic of face_crop for one output element of one axis, on the host and on the device.
#pragma once

#include "guide_fast/face_crop.h"
#include "host_device.h"

namespace gf {

// Sum over the taps of output `i` of weight * value(input index).
template <class Value>
GF_HD float resample(const gf_axis& axis, int64_t i, const Value& value) {
  const int64_t start = axis.start[i];
  float sum = 0.f;
  for (int64_t k = 0; k < axis.taps; ++k) sum += axis.weight[k * axis.out + i] * value(start + k);
  return sum;
}

// Whether output `i` has any weight: rows outside the crop have none in the gradient.
GF_HD bool touched(const gf_axis& axis, int64_t i) {
  for (int64_t k = 0; k < axis.taps; ++k)
    if (axis.weight[k * axis.out + i] != 0.f) return true;
  return false;
}

}  // namespace gf
