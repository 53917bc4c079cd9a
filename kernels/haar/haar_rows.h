// The wavelet of one pixel's channels in vectors, for the CPU paths of haar and separable_conv2d.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vec __attribute__((vector_size(4 * kLanes)));
typedef float loose __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline vec load_vec(const float* at) { return *reinterpret_cast<const loose*>(at); }
inline void store_vec(float* at, vec value) { *reinterpret_cast<loose*>(at) = value; }
inline void store_some(float* at, vec value, int64_t count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(at, __mmask16((1u << count) - 1), (__m512)value);
#else
  for (int64_t i = 0; i < count; ++i) at[i] = value[i];
#endif
}
// Past the caches: a large output is not read soon. An aligned address, then `store_fence` before another thread reads.
inline void stream_vec(float* at, vec value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(at, (__m512)value);
#elif defined(__AVX__)
  _mm256_stream_ps(at, (__m256)value);
#elif defined(__SSE2__)
  _mm_stream_ps(at, (__m128)value);
#else
  store_vec(at, value);
#endif
}
inline void store_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
inline vec fill_vec(float value) { return vec{} + value; }

template <int... I>
inline vec evens(vec a, vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...);
}
template <int... I>
inline vec odds(vec a, vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + 1)...);
}
template <int... I>
inline vec zip_low(vec a, vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * kLanes)...);
}
template <int... I>
inline vec zip_high(vec a, vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (kLanes / 2 + I / 2 + I % 2 * kLanes)...);
}

// Four numbers that the wavelet turns into four others: bands (ll, lh, hl, hh) or a 2x2 block, row by row.
struct Four {
  vec a, b, c, d;
};

// The 4x4 sign matrix of the wavelet is symmetric, so synthesis is analysis.
inline Four turn(const Four& x) {
  const vec ab = x.a + x.b, cd = x.c + x.d, a_b = x.a - x.b, c_d = x.c - x.d;
  return {ab + cd, ab - cd, a_b + c_d, a_b - c_d};
}

constexpr auto kIndex = std::make_integer_sequence<int, kLanes>{};

// [4 kLanes] with the band fastest -> one vector a band
inline Four split_bands(const vec (&r)[4]) {
  const vec e0 = evens(r[0], r[1], kIndex), e1 = evens(r[2], r[3], kIndex);
  const vec o0 = odds(r[0], r[1], kIndex), o1 = odds(r[2], r[3], kIndex);
  return {evens(e0, e1, kIndex), evens(o0, o1, kIndex), odds(e0, e1, kIndex), odds(o0, o1, kIndex)};
}

inline void join_bands(const Four& x, vec (&r)[4]) {
  const vec e0 = zip_low(x.a, x.c, kIndex), e1 = zip_high(x.a, x.c, kIndex);
  const vec o0 = zip_low(x.b, x.d, kIndex), o1 = zip_high(x.b, x.d, kIndex);
  r[0] = zip_low(e0, o0, kIndex), r[1] = zip_high(e0, o0, kIndex);
  r[2] = zip_low(e1, o1, kIndex), r[3] = zip_high(e1, o1, kIndex);
}

// One pixel's bands x [4 channels] times half [4 channels] -> the block at top, top + next, bottom, bottom + next.
// top or bottom may be null: that row is not wanted.
inline void synthesise(const float* x, const float* half, int64_t channels, float* top, float* bottom, int64_t next) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    vec r[4];
    for (int k = 0; k < 4; ++k) r[k] = load_vec(x + 4 * c + k * kLanes) * load_vec(half + 4 * c + k * kLanes);
    const Four block = turn(split_bands(r));
    if (top) store_vec(top + c, block.a), store_vec(top + next + c, block.b);
    if (bottom) store_vec(bottom + c, block.c), store_vec(bottom + next + c, block.d);
  }
  for (; c < channels; ++c) {
    const float *p = x + 4 * c, *s = half + 4 * c;
    const float ll = p[0] * s[0], lh = p[1] * s[1], hl = p[2] * s[2], hh = p[3] * s[3];
    const float ab = ll + lh, cd = hl + hh, a_b = ll - lh, c_d = hl - hh;
    if (top) top[c] = ab + cd, top[next + c] = ab - cd;
    if (bottom) bottom[c] = a_b + c_d, bottom[next + c] = a_b - c_d;
  }
}

// The transpose: a block at top, bottom -> bands times half into gx [4 channels]; sums += bands * x, both optional.
inline void analyse(const float* top, const float* bottom, int64_t next, const float* half, int64_t channels,
                    const float* x, float* gx, float* sums, bool stream = false) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    vec r[4];
    join_bands(turn({load_vec(top + c), load_vec(top + next + c), load_vec(bottom + c), load_vec(bottom + next + c)}),
               r);
    for (int k = 0; k < 4; ++k) {
      const int64_t at = 4 * c + k * kLanes;
      if (stream && gx)
        stream_vec(gx + at, r[k] * load_vec(half + at));
      else if (gx)
        store_vec(gx + at, r[k] * load_vec(half + at));
      if (sums) store_vec(sums + at, load_vec(sums + at) + r[k] * load_vec(x + at));
    }
  }
  for (; c < channels; ++c) {
    const float ab = top[c] + top[next + c], cd = bottom[c] + bottom[next + c];
    const float a_b = top[c] - top[next + c], c_d = bottom[c] - bottom[next + c];
    const float bands[4] = {ab + cd, ab - cd, a_b + c_d, a_b - c_d};
    for (int k = 0; k < 4; ++k) {
      if (gx) gx[4 * c + k] = bands[k] * half[4 * c + k];
      if (sums) sums[4 * c + k] += bands[k] * x[4 * c + k];
    }
  }
}

}  // namespace
