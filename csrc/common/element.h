// Loads and stores of the element types: arithmetic is fp32 whatever the storage (fp64 stays fp64).
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace gf {

struct half_bits {
  uint16_t bits;
};

struct bfloat16_bits {
  uint16_t bits;
};

GF_HD float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

GF_HD uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

GF_HD float load(float value) { return value; }
GF_HD double load(double value) { return value; }
GF_HD float load(bfloat16_bits value) { return bits_to_float(uint32_t(value.bits) << 16); }

GF_HD float load(half_bits value) {
  // the exponent is re-biased by a multiplication, which also makes subnormals right
  const uint32_t magnitude = uint32_t(value.bits & 0x7fffu) << 13;
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  const float scaled = bits_to_float(magnitude) * bits_to_float(0x77800000u);  // 2^112
  const uint32_t infinite = (value.bits & 0x7c00u) == 0x7c00u ? 0x7f800000u | magnitude : float_to_bits(scaled);
  return bits_to_float(infinite | sign);
}

GF_HD void store(float* at, float value) { *at = value; }
GF_HD void store(double* at, double value) { *at = value; }

GF_HD void store(bfloat16_bits* at, float value) {  // round to nearest even
  const uint32_t bits = float_to_bits(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  at->bits = nan ? uint16_t((bits >> 16) | 0x40u) : uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

GF_HD void store(half_bits* at, float value) {  // round to nearest even
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    result = 0x7c00u;  // rounds past the largest finite half
  } else if (magnitude >= 0x38800000u) {
    result = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {
    // adding 0.5 puts the subnormal's last place at the float's, so that the addition rounds
    result = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  }
  at->bits = uint16_t(result | sign);
}

}  // namespace gf
