// Register-blocked matrix product of the CPU paths: pixels x depth times packed depth x channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "haar_rows.h"

namespace {

#define GF_INLINE inline __attribute__((always_inline))

// Channels of a block in vectors, pixels of a block: all accumulators, one row of b, one broadcast fit the registers.
#if defined(__AVX512F__)
constexpr int kWide = 4;  // 32 registers; 6 x 4 accumulators leave eight for operands
constexpr int pixels_of(int wide) { return wide == 4 ? 6 : wide == 3 ? 8 : wide == 2 ? 12 : 14; }
#else
constexpr int kWide = 3;  // 16 registers
constexpr int pixels_of(int wide) { return wide == 3 ? 4 : wide == 2 ? 6 : 8; }
#endif
constexpr int kMaxPixels = 14;

inline int64_t round_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// Rows of a panel of b lie one after another: [depth][wide * kLanes].
struct Panel {
  int64_t first;  // channel
  int wide;       // vectors
};

inline int64_t panel_count(int64_t channels) { return (channels + kWide * kLanes - 1) / (kWide * kLanes); }

inline Panel panel_at(int64_t index, int64_t channels) {
  const int64_t first = index * kWide * kLanes;
  return {first, int(std::min<int64_t>(kWide, (channels - first + kLanes - 1) / kLanes))};
}

// Floats of all panels together.
inline int64_t packed_size(int64_t depth, int64_t channels) { return depth * round_up(channels, kLanes); }

// b[k, c] = weight[k, c] of weight [depth, channels] -> panel `index` of packed; a missing channel is zero.
inline void pack(const float* weight, int64_t depth, int64_t channels, int64_t index, float* packed) {
  const Panel panel = panel_at(index, channels);
  const int64_t width = panel.wide * kLanes, inside = std::min(width, channels - panel.first);
  float* out = packed + panel.first * depth;
  for (int64_t k = 0; k < depth; ++k, out += width) {
    std::copy_n(weight + k * channels + panel.first, inside, out);
    std::fill(out + inside, out + width, 0.f);
  }
}

// Rows become columns: after log2(kLanes) rounds of interleaving the first half with the second.
inline void transpose(vec (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    vec next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = zip_low(rows[i], rows[i + kLanes / 2], kIndex);
      next[2 * i + 1] = zip_high(rows[i], rows[i + kLanes / 2], kIndex);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// b[k, c] = weight[c, k] * scale[k] of weight [channels, depth] -> panel `index` of packed; a missing channel is zero.
inline void pack_transposed(const float* weight, const float* scale, int64_t depth, int64_t channels, int64_t index,
                            float* packed) {
  const Panel panel = panel_at(index, channels);
  const int64_t width = panel.wide * kLanes;
  float* out = packed + panel.first * depth;
  for (int64_t c = 0; c < width; c += kLanes) {
    const int64_t inside = std::clamp<int64_t>(channels - panel.first - c, 0, kLanes);
    const float* in = weight + (panel.first + c) * depth;
    int64_t k = 0;
    for (; inside == kLanes && k + kLanes <= depth; k += kLanes) {
      vec rows[kLanes];
      const vec factor = scale ? load_vec(scale + k) : fill_vec(1.f);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) rows[i] = load_vec(in + i * depth + k) * factor;
      transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store_vec(out + (k + i) * width + c, rows[i]);
    }
    for (; k < depth; ++k)
      for (int64_t i = 0; i < kLanes; ++i)
        out[k * width + c + i] = i < inside ? in[i * depth + k] * (scale ? scale[k] : 1.f) : 0.f;
  }
}

// a[pixel * a_pixel + k * a_k] times b[k * b_k + channel]
struct Factors {
  const float* a;
  int64_t a_pixel, a_k;
  const float* b;
  int64_t b_k;
  int64_t pixels, depth;
};

// sink(pixel, vector, sum over k) for pixels [first, first + Pixels)
template <int Wide, int Pixels, class Sink>
GF_INLINE void block(const Factors& f, int64_t first, const Sink& sink) {
  const float *a = f.a + first * f.a_pixel, *b = f.b;
  const int64_t a_pixel = f.a_pixel, a_k = f.a_k, b_k = f.b_k, depth = f.depth;
  vec sums[Pixels][Wide];
#pragma GCC unroll 16
  for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 4
    for (int q = 0; q < Wide; ++q) sums[p][q] = vec{};
  for (int64_t k = 0; k < depth; ++k, b += b_k, a += a_k) {
    vec w[Wide];
#pragma GCC unroll 4
    for (int q = 0; q < Wide; ++q) w[q] = load_vec(b + q * kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < Pixels; ++p) {
      const vec x = fill_vec(a[p * a_pixel]);
#pragma GCC unroll 4
      for (int q = 0; q < Wide; ++q) sums[p][q] += x * w[q];
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 4
    for (int q = 0; q < Wide; ++q) sink(p, q, sums[p][q]);
}

// Memory that is read soon, fetched piece by piece between the blocks of a product.
struct Soon {
  const float* at[3] = {};
  int64_t floats[3] = {};

  void fetch(int64_t part, int64_t parts) const {
    for (int i = 0; i < 3; ++i)
      for (int64_t line = floats[i] * part / parts / 16; line < floats[i] * (part + 1) / parts / 16; ++line)
        __builtin_prefetch(at[i] + 16 * line, 0, 2);
  }
};

template <int Wide, class Sink>
void panel_product(const Factors& f, const Soon& soon, const Sink& sink) {
  constexpr int kPixels = pixels_of(Wide);
  for (int64_t p = 0; p < f.pixels; p += kPixels) {
    soon.fetch(p / kPixels, (f.pixels + kPixels - 1) / kPixels);
    // the last block moves back over pixels that are done: no second kernel
    const int64_t first = std::max<int64_t>(0, std::min(p, f.pixels - kPixels));
    block<Wide, kPixels>(f, first, [&](int i, int q, vec sum) __attribute__((always_inline)) {
      if (first + i >= p) sink(first + i, q, sum);
    });
  }
}

// Every pixel times one panel. Where pixels < kMaxPixels, a and the sink take kMaxPixels.
template <class Sink>
void product(const Factors& f, int wide, const Soon& soon, const Sink& sink) {
  switch (wide) {
    case 1: return panel_product<1>(f, soon, sink);
    case 2: return panel_product<2>(f, soon, sink);
    case 3: return panel_product<3>(f, soon, sink);
#if defined(__AVX512F__)
    case 4: return panel_product<4>(f, soon, sink);
#endif
  }
}

}  // namespace
