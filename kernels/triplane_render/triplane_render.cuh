// One ray of triplane_render, on the host and on the device: sampling, activations, march, its reverse.
#pragma once

#include <cmath>
#include <cstdint>

#include "guide_fast/triplane_render.h"
#include "host_device.h"

#ifdef __CUDACC__
#define GF_PRAGMA(text) _Pragma(#text)
#define GF_UNROLL(count) GF_PRAGMA(unroll count)
#else
#define GF_UNROLL(count)
#endif

namespace gf::triplane {
#ifndef __CUDACC__
namespace {  // a copy for every instruction set that includes it: the linker must not merge them
#endif

constexpr int kChannels = GF_TRIPLANE_CHANNELS;
constexpr int kHidden = GF_TRIPLANE_HIDDEN;
constexpr int kColours = GF_TRIPLANE_COLOURS;
constexpr int kB1 = kHidden * kChannels;  // where a flat decoder's parts begin; w1 at 0
constexpr int kW2 = kB1 + kHidden;
constexpr int kB2 = kW2 + (1 + kColours) * kHidden;
constexpr float kWiden = 0.001f;     // colours may leave [0, 1] by this much
constexpr float kLeak = 1e-10f;      // of light through an opaque interval
constexpr float kFloor = 0.01f;      // added to every smoothed weight
constexpr float kSmallest = 1e-5f;   // added again; a narrower step of the CDF counts as 1

// a * b rounded by itself: fused with the sum behind it, it would move samples by a rounding of their position, and what
// published planes show there changes visibly
GF_HD float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  const volatile float product = a * b;
  return product;
#endif
}

GF_HD float exponential(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp(x);
#endif
}

GF_HD float softplus(float x) {
  const float small = exponential(x < 0 ? x : -x);
#ifdef __CUDA_ARCH__
  return (x < 0 ? 0.f : x) + __logf(1 + small);
#else
  return (x < 0 ? 0.f : x) + std::log1p(small);
#endif
}

GF_HD float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

// --- planes ---

struct Cell {
  int x, y;      // upper left of four texels; any of them may lie outside
  float fx, fy;  // how far towards the others
};

// [-1, 1] spans the plane, texel centres lie inside its edge
GF_HD Cell cell_of(float across, float down, int width, int height) {
  const float x = ((across + 1) * width - 1) * 0.5f, y = ((down + 1) * height - 1) * 0.5f;
  // far outside is as good as just outside, and fits an int; a NaN goes there too
  const float cx = x > -2 ? (x < width + 1 ? x : width + 1.f) : -2.f;
  const float cy = y > -2 ? (y < height + 1 ? y : height + 1.f) : -2.f;
  const float left = std::floor(cx), top = std::floor(cy);
  return {int(left), int(top), cx - left, cy - top};
}

// planes hold (x, y), (x, z), (z, x), as published
GF_HD Cell cell_on_plane(int plane, float x, float y, float z, int width, int height) {
  return cell_of(plane == 2 ? z : x, plane == 0 ? y : plane == 1 ? z : x, width, height);
}

// weight of corner 0..3 (right: bit 0, lower: bit 1), zero outside
GF_HD float corner_weight(const Cell& c, int corner, int width, int height) {
  const int x = c.x + (corner & 1), y = c.y + (corner >> 1);
  if (x < 0 || y < 0 || x >= width || y >= height) return 0;
  return (corner & 1 ? c.fx : 1 - c.fx) * (corner >> 1 ? c.fy : 1 - c.fy);
}

// --- samples of a ray ---

// counted from the nearer end in one rounding, as torch.linspace does
GF_HD float coarse_depth(float near_end, float far_end, int count, int i, float jitter) {
  const float step = (far_end - near_end) / (count - 1);
  const float even = i < count / 2 ? std::fma(float(i), step, near_end) : std::fma(float(i + 1 - count), step, far_end);
  return even + rounded_product(jitter, step);
}

// a coordinate of a sample, in [-1, 1] inside the box
GF_HD float coordinate(float origin, float direction, float depth, float scale) {
  return (origin + rounded_product(direction, depth)) * scale;
}

// weights [intervals] -> their cumulated density cdf [intervals - 1], from 0: two neighbours' maxima are averaged,
// the first and the last interval left out
GF_HD void cumulate(const float* weights, int intervals, float* cdf) {
  float sum = 0;
  cdf[0] = 0;
  for (int k = 1; k < intervals - 1; ++k) {
    const float before = weights[k] > weights[k - 1] ? weights[k] : weights[k - 1];
    const float after = weights[k + 1] > weights[k] ? weights[k + 1] : weights[k];
    sum += (before + after) * 0.5f + kFloor + kSmallest;
    cdf[k] = sum;
  }
  const float scale = 1 / sum;
  for (int k = 1; k < intervals - 1; ++k) cdf[k] *= scale;
}

// depth where the cumulated density is u; interval middles stand at the steps of the CDF. Finite even for NaN weights
GF_HD float quantile(const float* depths, const float* cdf, int steps, float u) {
  int below = 0, above = steps;  // cdf[below] <= u < cdf[above]
  while (above - below > 1) {
    const int middle = (below + above) / 2;
    if (cdf[middle] <= u) below = middle;
    else above = middle;
  }
  if (above == steps) above = below;
  const float width = cdf[above] - cdf[below];
  const float start = (depths[below] + depths[below + 1]) * 0.5f, end = (depths[above] + depths[above + 1]) * 0.5f;
  return start + (u - cdf[below]) / (width >= kSmallest ? width : 1) * (end - start);
}

// place of element i in sorted order; equal ones keep theirs
GF_HD int rank_of(const float* values, int count, int i) {
  int rank = 0;
  for (int j = 0; j < count; ++j) rank += values[j] < values[i] || (values[j] == values[i] && j < i);
  return rank;
}

// --- march ---

// 1 - e^-x for x >= 0, in steps of the last place of 1, as published: zero where e^-x rounds to 1, so that a ray can
// meet nothing, and the depth of a ray that meets next to nothing is the published one. Also for vectors, with their
// own `clear` = e^-x.
template <class Value>
GF_HD Value opacity_of(Value x, Value clear) {
  const Value series = x * (1.f - x * (1 / 2.f - x * (1 / 6.f - x * (1 / 24.f - x * (1 / 120.f)))));
  return 1.f - (x < 0.1f ? 1.f - series : clear);
}

GF_HD float opacity(float sigma, float next_sigma, float length) {
  const float mean = (sigma + next_sigma) * 0.5f - 1;
  const float x = ((mean < 0 ? 0.f : mean) + log1pf(expf(mean < 0 ? mean : -mean))) * length;
  return opacity_of(x, expf(-x));
}

// light that arrives at every interval
GF_HD void transmittance(const float* alpha, int intervals, float* through) {
  float light = 1;
  GF_UNROLL(8)
  for (int k = 0; k < intervals; ++k) {
    through[k] = light;
    light *= 1 - alpha[k] + kLeak;
  }
}

// sum of the terms behind every interval
GF_HD void suffix_sums(const float* terms, int intervals, float* behind) {
  float sum = 0;
  GF_UNROLL(8)
  for (int k = intervals - 1; k >= 0; --k) {
    behind[k] = sum;
    sum += terms[k];
  }
}

// dL/d(mean raw density of an interval), where `pull` = dL/d(its weight), `behind` = sum of weight * pull behind it
GF_HD float density_gradient(float alpha, float through, float pull, float behind, float sigma, float next_sigma,
                             float length) {
  const float clear = 1 - alpha;
  const float toward = clear * through * pull - clear / (clear + kLeak) * behind;  // dL/d(density * length)
  return toward * length * sigmoid((sigma + next_sigma) * 0.5f - 1);
}

// What every interval's weight is pulled by besides the colours: `all` + `along` * (its middle - the ray's depth)
struct Pull {
  float all, along;
};

GF_HD Pull pull_of(float gtotal, float gdepth, float gfeatures_sum, float total, bool white_back) {
  return {gtotal - (white_back ? 2 * gfeatures_sum : 0.f), total > 0 ? gdepth / total : 0.f};
}

// --- planes' gradient: the last four texels stay in registers until the ray leaves them ---

// One channel. `flush(x, y, value)` adds a sum to the texel (x, y), which may lie outside.
struct TexelCache {
  int x = -(1 << 20), y = -(1 << 20);
  float sum[4] = {0, 0, 0, 0};

  template <class Flush>
  GF_HD void add(const Cell& c, float value, const Flush& flush) {
    if (c.x != x || c.y != y) move(c.x, c.y, flush);
    sum[0] += value * (1 - c.fx) * (1 - c.fy);
    sum[1] += value * c.fx * (1 - c.fy);
    sum[2] += value * (1 - c.fx) * c.fy;
    sum[3] += value * c.fx * c.fy;
  }

  // texels that the new cell shares are kept
  template <class Flush>
  GF_HD void move(int to_x, int to_y, const Flush& flush) {
    const int dx = to_x - x, dy = to_y - y;
    float kept[4] = {0, 0, 0, 0};
    GF_UNROLL(4)
    for (int old = 0; old < 4; ++old) {
      const int nx = (old & 1) - dx, ny = (old >> 1) - dy;
      const bool stays = nx >= 0 && nx < 2 && ny >= 0 && ny < 2;
      if (!stays) flush(x + (old & 1), y + (old >> 1), sum[old]);
    GF_UNROLL(4)
      for (int corner = 0; corner < 4; ++corner)
        if (stays && nx == (corner & 1) && ny == corner >> 1) kept[corner] = sum[old];
    }
    GF_UNROLL(4)
    for (int corner = 0; corner < 4; ++corner) sum[corner] = kept[corner];
    x = to_x, y = to_y;
  }

  template <class Flush>
  GF_HD void finish(const Flush& flush) {
    move(-(1 << 20), -(1 << 20), flush);
  }
};

// Why a launcher refuses, or GF_OK.
inline gf_status check_scene(const gf_triplane_scene& s, int samples) {
  if (samples < 2 || samples > GF_TRIPLANE_MOST_SAMPLES)
    return gf_fail(GF_INVALID, "a ray has %d samples; 2 to %d are possible", samples, GF_TRIPLANE_MOST_SAMPLES);
  if (s.height < 1 || s.width < 1 || s.height >= 1 << 20 || s.width >= 1 << 20)
    return gf_fail(GF_INVALID, "planes are %lld x %lld; 1 to 2^20 - 1 texels are possible", (long long)s.height,
                   (long long)s.width);
  return GF_OK;
}

inline gf_status check_render(const gf_triplane_render& a) {
  if (a.fine < 0 || a.coarse < (a.fine > 0 ? 4 : 2))
    return gf_fail(GF_INVALID, "%d coarse, %d fine samples are not enough; 4 coarse ones, or 2 alone, are",
                   int(a.coarse), int(a.fine));
  return check_scene(a.scene, a.coarse + a.fine);
}

#ifndef __CUDACC__
}  // namespace
#endif
}  // namespace gf::triplane
