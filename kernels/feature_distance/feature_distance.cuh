// Arithmetic of feature_distance for one pixel, on the host and on the device.
#pragma once

#include <cmath>

#include "guide_fast/feature_distance.h"
#include "host_device.h"

namespace gf {

// 1 / length over channels, from the sum of squares
GF_HD float feature_inverse(float squares, float eps) { return 1.f / sqrtf(squares + eps); }

// One channel of u - v, u = a * ra, v = b * rb, q = rb / ra. Exactly 0 where a == b, whatever the compiler fuses.
GF_HD float feature_difference(float a, float b, float ra, float q) { return ra * (a - q * b); }

// d distance / d a: g is a factor common to all channels, e = weight * (u - v), along = sum of u * e.
// For b the same of rb, -e, v.
GF_HD float feature_slope(float g, float r, float e, float u, float along) { return g * r * (e - u * along); }

// The piece of work with index `block` among all taps' blocks: which tap, which pixels.
struct feature_block {
  int tap;
  int64_t begin, end;
};

GF_HD int64_t feature_blocks(const gf_feature_distance& a) {
  int64_t blocks = 0;
  for (int t = 0; t < a.taps; ++t) blocks += (a.tap[t].pixels + GF_FEATURE_PIXELS - 1) / GF_FEATURE_PIXELS;
  return blocks;
}

GF_HD feature_block feature_block_at(const gf_feature_distance& a, int64_t block) {
  int t = 0;
  for (; t + 1 < a.taps; ++t) {
    const int64_t blocks = (a.tap[t].pixels + GF_FEATURE_PIXELS - 1) / GF_FEATURE_PIXELS;
    if (block < blocks) break;
    block -= blocks;
  }
  const int64_t begin = block * GF_FEATURE_PIXELS, end = begin + GF_FEATURE_PIXELS;
  return {t, begin, end < a.tap[t].pixels ? end : a.tap[t].pixels};
}

}  // namespace gf
