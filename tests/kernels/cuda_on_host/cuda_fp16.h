// Half precision by the library's own conversions, for kernels that run on the host.
#pragma once

#include "element.h"

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};

inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half value) { return value.bits; }
inline float __half2float(__half value) { return gf::load(gf::half_bits{value.bits}); }
inline __half __float2half_rn(float value) {
  gf::half_bits out;
  gf::store(&out, value);
  return {out.bits};
}
inline __half __hmul(__half a, __half b) { return __float2half_rn(__half2float(a) * __half2float(b)); }
inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
