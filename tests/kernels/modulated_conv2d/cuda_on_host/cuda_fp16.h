// Half precision on the host, through the library's own conversions.
#pragma once

#include "element.h"

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half v) { return v.bits; }
inline float __half2float(__half v) { return gf::load(gf::half_bits{v.bits}); }
inline __half __float2half_rn(float v) {
  gf::half_bits out;
  gf::store(&out, v);
  return {out.bits};
}
inline __half __hmul(__half a, __half b) { return __float2half_rn(__half2float(a) * __half2float(b)); }
inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline float as_float(__half v) { return __half2float(v); }
