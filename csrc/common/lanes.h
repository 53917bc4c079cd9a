// Eight floats side by side: sums become vectors without -ffast-math. Wider ones are taken apart badly by AVX2.
#pragma once

#include <cstdint>
#include <cstring>

#include "element.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // always inlined: no vector crosses a call

#define GF_LANES_INLINE inline __attribute__((always_inline))

namespace {

constexpr int kLanes = 8;
typedef float lanes __attribute__((vector_size(4 * kLanes)));

GF_LANES_INLINE lanes load_lanes(const float* at) {
  lanes x;
  std::memcpy(&x, at, sizeof x);
  return x;
}

template <class T>
GF_LANES_INLINE lanes load_lanes(const T* at) {
  lanes x;
  for (int i = 0; i < kLanes; ++i) x[i] = gf::load(at[i]);
  return x;
}

// The first `count` lanes, zero behind them.
template <class T>
GF_LANES_INLINE lanes load_lanes(const T* at, int64_t count) {
  if (count >= kLanes) return load_lanes(at);
  lanes x = {};
  for (int i = 0; i < count; ++i) x[i] = gf::load(at[i]);
  return x;
}

template <>
GF_LANES_INLINE lanes load_lanes(const float* at, int64_t count) {
  if (count >= kLanes) return load_lanes(at);
  float part[kLanes] = {};
  for (int i = 0; i < count; ++i) part[i] = at[i];
  return load_lanes(part);
}

template <class T>
GF_LANES_INLINE void store_lanes(T* at, const lanes& x, int64_t count) {
  if (count >= kLanes)
    for (int i = 0; i < kLanes; ++i) gf::store(at + i, x[i]);
  else
    for (int i = 0; i < count; ++i) gf::store(at + i, x[i]);
}

template <>
GF_LANES_INLINE void store_lanes(float* at, const lanes& x, int64_t count) {
  if (count >= kLanes)
    std::memcpy(at, &x, sizeof x);
  else
    for (int i = 0; i < count; ++i) at[i] = x[i];
}

// In halves: three steps, not eight.
GF_LANES_INLINE float sum_lanes(const lanes& x) {
  typedef float four __attribute__((vector_size(16)));
  four half[2];
  std::memcpy(half, &x, sizeof x);
  const four y = half[0] + half[1];
  return (y[0] + y[2]) + (y[1] + y[3]);
}

}  // namespace
