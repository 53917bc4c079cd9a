// Arithmetic of identity_loss for one pair of embeddings, on the host and on the device.
#pragma once

#include <cmath>

#include "guide_fast/identity_loss.h"
#include "host_device.h"

namespace gf {

// How the embeddings of a pair are scaled: u = a * ra, v = b * rb, u - v = ra * (a - q * b).
struct identity_lengths {
  float ra, rb;
  float q;  // rb / ra, exactly 1 for equal lengths
  bool unit_a, unit_b;  // u has length 1: neither left as it is nor held by eps
};

// aa = |a|^2, bb = |b|^2
GF_HD identity_lengths identity_scale(float aa, float bb, bool normalise, float eps) {
  identity_lengths l;
  l.unit_a = normalise && aa >= eps * eps;
  l.unit_b = normalise && bb >= eps * eps;
  l.ra = !normalise ? 1.f : l.unit_a ? 1.f / sqrtf(aa) : 1.f / eps;
  l.rb = !normalise ? 1.f : l.unit_b ? 1.f / sqrtf(bb) : 1.f / eps;
  l.q = l.rb / l.ra;
  return l;
}

// One element of u - v. Exactly 0 where a == b: a fused u - v would leave a rounding error, which the slope of a distance
// blows up to length 1.
GF_HD float identity_difference(const identity_lengths& l, float a, float b) { return l.ra * (a - l.q * b); }

// Loss of a pair from ee = |u - v|^2. 1 - cos is ee / 2 for unit vectors, without the cancellation at cos near 1.
GF_HD float identity_pair_loss(gf_identity_kind kind, const identity_lengths& l, float aa, float bb, float ee) {
  if (kind == GF_SQUARED_L2) return ee;
  if (kind == GF_L2) return sqrtf(ee);
  const float short_a = l.unit_a ? 0.f : 1.f - aa * l.ra * l.ra;
  const float short_b = l.unit_b ? 0.f : 1.f - bb * l.rb * l.rb;
  return 0.5f * (ee + short_a + short_b);
}

// d loss / d a = ra * (k * e - pa * u), d loss / d b = -rb * (k * e + pb * v), with e = u - v
struct identity_slope {
  float k, pa, pb;
};

// ue = u . e, ve = v . e
GF_HD identity_slope identity_pair_slope(gf_identity_kind kind, const identity_lengths& l, float ee, float ue,
                                         float ve) {
  identity_slope s;
  s.k = kind == GF_COSINE ? 1.f : kind == GF_SQUARED_L2 ? 2.f : ee > 0.f ? 1.f / sqrtf(ee) : 0.f;
  const float held = kind == GF_COSINE ? 1.f : 0.f;  // the slope of -u.v in u is -v = e - u
  s.pa = l.unit_a ? s.k * ue : held;
  s.pb = l.unit_b ? -s.k * ve : held;
  return s;
}

}  // namespace gf
