// Native CPU path of haar: each value is read once, written once.
#include <algorithm>
#include <vector>

#include "guide_fast/haar.h"
#include "haar_rows.h"
#include "isa.h"
#include "parallel.h"

namespace {

constexpr int64_t kGrain = 1 << 14;
constexpr int64_t kStrips = 32;  // of rows; a fixed number keeps the order of sums

std::vector<float> halved(const void* style, int64_t count) {
  std::vector<float> half(count, 0.5f);
  if (style)
    for (int64_t i = 0; i < count; ++i) half[i] = 0.5f * static_cast<const float*>(style)[i];
  return half;
}

gf_status refuse(gf_dtype dtype) {
  return gf_fail(GF_INVALID, "dtype %d is not known to haar on the CPU; convert to float32", int(dtype));
}

// One channel of an NCHW tensor: rows of four planes <-> rows of one.
struct Plane {
  int64_t h, w;

  void synthesise(const float* x, const float* half, float* y) const {
    const int64_t size = h * w;
    for (int64_t i = 0; i < h; ++i) {
      const float* in = x + i * w;
      float *top = y + 4 * i * w, *bottom = top + 2 * w;
      for (int64_t j = 0; j < w; ++j) {
        const float ll = in[j] * half[0], lh = in[size + j] * half[1];
        const float hl = in[2 * size + j] * half[2], hh = in[3 * size + j] * half[3];
        const float ab = ll + lh, cd = hl + hh, a_b = ll - lh, c_d = hl - hh;
        top[2 * j] = ab + cd, top[2 * j + 1] = ab - cd;
        bottom[2 * j] = a_b + c_d, bottom[2 * j + 1] = a_b - c_d;
      }
    }
  }

  void analyse(const float* gy, const float* half, const float* x, float* gx, float* sums) const {
    const int64_t size = h * w;
    double totals[4] = {};
    for (int64_t i = 0; i < h; ++i) {
      const float *top = gy + 4 * i * w, *bottom = top + 2 * w;
      for (int64_t j = 0; j < w; ++j) {
        const float ab = top[2 * j] + top[2 * j + 1], cd = bottom[2 * j] + bottom[2 * j + 1];
        const float a_b = top[2 * j] - top[2 * j + 1], c_d = bottom[2 * j] - bottom[2 * j + 1];
        const float bands[4] = {ab + cd, ab - cd, a_b + c_d, a_b - c_d};
        for (int k = 0; k < 4; ++k) {
          const int64_t at = k * size + i * w + j;
          if (gx) gx[at] = bands[k] * half[k];
          if (sums) totals[k] += bands[k] * x[at];
        }
      }
    }
    if (sums)
      for (int k = 0; k < 4; ++k) sums[k] = float(0.5 * totals[k]);
  }
};

}  // namespace

extern "C" gf_status GF_LOCAL(gf_haar_cpu)(const gf_haar* a) {
  if (a->dtype != GF_FLOAT32) return refuse(a->dtype);
  const int64_t bands = 4 * a->channels;
  const std::vector<float> half = halved(a->style, a->n * bands);
  const float* x = static_cast<const float*>(a->x);
  float* y = static_cast<float*>(a->y);
  if (!a->nhwc) {
    const Plane plane{a->h, a->w};
    const int64_t size = 4 * a->h * a->w;
    gf::parallel_for(0, a->n * a->channels, 1 + kGrain / size, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) plane.synthesise(x + p * size, half.data() + 4 * p, y + p * size);
    });
    return GF_OK;
  }
  const int64_t row = a->w * bands;
  gf::parallel_for(0, a->n * a->h, 1 + kGrain / row, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < a->w; ++j) {
        float* top = y + i * row + 2 * j * a->channels;
        synthesise(x + i * row + j * bands, half.data() + i / a->h * bands, a->channels, top, top + row / 2,
                   a->channels);
      }
  });
  return GF_OK;
}
GF_CPU_ENTRY(gf_haar_cpu, gf_haar)

extern "C" gf_status GF_LOCAL(gf_haar_backward_cpu)(const gf_haar_backward* a) {
  if (a->dtype != GF_FLOAT32) return refuse(a->dtype);
  const int64_t bands = 4 * a->channels;
  const std::vector<float> half = halved(a->style, a->n * bands);
  const float *gy = static_cast<const float*>(a->gy), *x = static_cast<const float*>(a->x);
  float* gx = static_cast<float*>(a->gx);
  if (!a->nhwc) {
    const Plane plane{a->h, a->w};
    const int64_t size = 4 * a->h * a->w;
    gf::parallel_for(0, a->n * a->channels, 1 + kGrain / size, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        plane.analyse(gy + p * size, half.data() + 4 * p, a->gstyle ? x + p * size : nullptr,
                      gx ? gx + p * size : nullptr, a->gstyle ? a->gstyle + 4 * p : nullptr);
    });
    return GF_OK;
  }
  const int64_t row = a->w * bands;
  const int64_t strips = std::min(a->h, kStrips);
  std::vector<float> partial(a->gstyle ? a->n * strips * bands : 0, 0.f);
  gf::parallel_for(0, a->n * strips, 1 + kGrain * strips / (row * a->h), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / strips, strip = task % strips;
      float* sums = a->gstyle ? partial.data() + task * bands : nullptr;
      for (int64_t i = n * a->h + strip * a->h / strips; i < n * a->h + (strip + 1) * a->h / strips; ++i)
        for (int64_t j = 0; j < a->w; ++j) {
          const float* top = gy + i * row + 2 * j * a->channels;
          const int64_t at = i * row + j * bands;
          analyse(top, top + row / 2, a->channels, half.data() + n * bands, a->channels, sums ? x + at : nullptr,
                  gx ? gx + at : nullptr, sums);
        }
    }
  });
  if (a->gstyle)
    for (int64_t n = 0; n < a->n; ++n)
      for (int64_t k = 0; k < bands; ++k) {
        float total = 0;
        for (int64_t strip = 0; strip < strips; ++strip) total += partial[(n * strips + strip) * bands + k];
        a->gstyle[n * bands + k] = 0.5f * total;
      }
  return GF_OK;
}
GF_CPU_ENTRY(gf_haar_backward_cpu, gf_haar_backward)
