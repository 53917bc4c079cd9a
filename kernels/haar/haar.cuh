// Arithmetic of the Haar wavelet for one 2x2 block, on the host and on the device.
#pragma once

#include "guide_fast/haar.h"
#include "host_device.h"

namespace gf {

// bands (ll, lh, hl, hh) -> pixels row by row; orthonormal, symmetric, so its own inverse
template <class Float>
GF_HD void haar_block(Float& a, Float& b, Float& c, Float& d) {
  const Float e = a + b, f = a - b, g = c + d, h = c - d;
  a = (e + g) * Float(0.5);
  b = (e - g) * Float(0.5);
  c = (f + h) * Float(0.5);
  d = (f - h) * Float(0.5);
}

}  // namespace gf
