// bfloat16 by the library's own conversions, for kernels that run on the host.
#pragma once

#include "element.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return {bits}; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline float __bfloat162float(__nv_bfloat16 value) { return gf::load(gf::bfloat16_bits{value.bits}); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  gf::bfloat16_bits out;
  gf::store(&out, value);
  return {out.bits};
}
