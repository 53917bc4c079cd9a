// Native CPU path of upfirdn2d: polyphase, so that inserted zeros and dropped pixels cost nothing; sums stay in registers.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#include "dispatch_dtype.h"
#include "isa.h"
#include "parallel.h"
#include "upfirdn2d.cuh"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
constexpr int kChunk = 4 * kLanes;         // outputs that one pass over the taps sums in registers
constexpr int64_t kBandBytes = 128 << 10;  // input rows of one task: they stay in the second-level cache

inline Lanes load_lanes(const float* at) {
  Lanes value;
  memcpy(&value, at, sizeof value);
  return value;
}

inline void store_lanes(float* at, Lanes value) { memcpy(at, &value, sizeof value); }

struct Term {
  float tap;
  const float* x;
};

// Four sums of kLanes outputs: out[i * out_step + lane] = sum over terms of tap * x[at + i * step + lane].
inline void sum_chunk(const Term* terms, int count, int64_t at, int64_t step, float* out, int64_t out_step) {
  Lanes a = {}, b = {}, c = {}, d = {};
  for (int i = 0; i < count; ++i) {
    const float* x = terms[i].x + at;
    const float tap = terms[i].tap;
    a += tap * load_lanes(x);
    b += tap * load_lanes(x + step);
    c += tap * load_lanes(x + 2 * step);
    d += tap * load_lanes(x + 3 * step);
  }
  store_lanes(out, a);
  store_lanes(out + out_step, b);
  store_lanes(out + 2 * out_step, c);
  store_lanes(out + 3 * out_step, d);
}

// One sum of kLanes outputs.
inline void sum_lanes(const Term* terms, int count, int64_t at, float* out) {
  Lanes sum = {};
  for (int i = 0; i < count; ++i) sum += terms[i].tap * load_lanes(terms[i].x + at);
  store_lanes(out, sum);
}

// One line of a plane as polyphase components. Output q * phases + p reads pixel q * streams + shift(p, tap), so with
// the pixels dealt out to `streams` lines, each tap of a phase is one contiguous line times a number.
struct Line {
  int phases, streams, base;
  int64_t outputs, length;  // of one phase; of one stream, a chunk longer than what is used
  std::vector<int> count;   // taps of a phase
  std::vector<int> tap;     // [phases, most]
  std::vector<int64_t> from;  // [phases, most] where the tap's line begins
  int most;

  explicit Line(const gf_upfirdn2d& a) {
    const int common = std::gcd(a.up_x, a.down_x);
    phases = a.up_x / common, streams = a.down_x / common;
    most = (a.filter_w + a.up_x - 1) / a.up_x;
    outputs = (a.out_w + phases - 1) / phases;
    int lowest = gf::first_tap(-a.left, a.up_x).pixel, highest = lowest;
    for (int p = 0; p < phases; ++p) highest = std::max(highest, gf::first_tap(p * a.down_x - a.left, a.up_x).pixel + most);
    base = lowest;
    length = (outputs + kChunk - 1) / kChunk * kChunk + (highest - lowest) / streams + 1;
    for (int p = 0; p < phases; ++p) {
      const gf::first_tap_of first = gf::first_tap(p * a.down_x - a.left, a.up_x);
      count.push_back(first.tap < a.filter_w ? (a.filter_w - first.tap + a.up_x - 1) / a.up_x : 0);
      for (int j = 0; j < most; ++j) {
        const int shift = first.pixel + j - base;
        tap.push_back(first.tap + j * a.up_x);
        from.push_back(shift % streams * length + shift / streams);
      }
    }
  }

  // A row of pixels, `step` apart, to its streams; zeros outside.
  template <class T>
  void deal(const T* x, int64_t width, int64_t step, float* out) const {
    for (int s = 0; s < streams; ++s) {
      float* line = out + s * length;
      // pixel base + s + m * streams is inside for m in [low, high)
      const int64_t low = std::min(length, std::max<int64_t>(0, -(base + s) + streams - 1) / streams);
      const int64_t left = width - base - s;
      const int64_t high = std::max(low, std::min(length, left > 0 ? (left + streams - 1) / streams : 0));
      std::fill(line, line + low, 0.f);
      if (streams == 1 && step == 1) {
        for (int64_t m = low; m < high; ++m) line[m] = gf::load(x[base + m]);
      } else if (streams == 2 && step == 1) {
        for (int64_t m = low; m < high; ++m) line[m] = gf::load(x[base + s + m * 2]);
      } else {
        for (int64_t m = low; m < high; ++m) line[m] = gf::load(x[(base + s + m * streams) * step]);
      }
      std::fill(line + high, line + length, 0.f);
    }
  }
};

// The sums of the phases to a row of pixels, `step` apart.
template <class T>
void interleave(const float* sums, int64_t stride, int phases, int64_t width, int64_t step, T* y) {
  if (phases == 1 && step == 1) {
    for (int64_t q = 0; q < width; ++q) gf::store(y + q, sums[q]);
  } else if (phases == 2 && step == 1) {
    for (int64_t q = 0; q < width / 2; ++q) {
      gf::store(y + 2 * q, sums[q]);
      gf::store(y + 2 * q + 1, sums[stride + q]);
    }
    if (width % 2) gf::store(y + width - 1, sums[width / 2]);
  } else {
    for (int p = 0; p < phases; ++p)
      for (int64_t x = p, q = 0; x < width; x += phases, ++q) gf::store(y + x * step, sums[p * stride + q]);
  }
}

// Plane by plane: NCHW, or NHWC of so few channels that no vector fills.
template <class T>
void planes(const gf_upfirdn2d& a) {
  const Line line(a);
  const int64_t step = a.nhwc ? a.c : 1;
  const int64_t row_floats = line.streams * line.length;
  const int64_t rows_fit = std::max<int64_t>(1, kBandBytes / int64_t(row_floats * sizeof(float)) - a.filter_h);
  const int64_t band = std::clamp<int64_t>(rows_fit * a.up_y / a.down_y, 1, a.out_h);
  const int64_t bands = (a.out_h + band - 1) / band;
  const int64_t work = band * a.out_w * line.most * ((a.filter_h + a.up_y - 1) / a.up_y);
  gf::parallel_for(0, a.n * a.c * bands, 1 + (1 << 16) / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<float> rows, sums(line.phases * (line.outputs + kChunk));
    std::vector<Term> terms(line.most * ((a.filter_h + a.up_y - 1) / a.up_y));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / bands, from = task % bands * band, to = std::min(from + band, a.out_h);
      const int64_t x_plane = a.nhwc ? plane / a.c * a.in_h * a.in_w * a.c + plane % a.c : plane * a.in_h * a.in_w;
      const int64_t y_plane = a.nhwc ? plane / a.c * a.out_h * a.out_w * a.c + plane % a.c : plane * a.out_h * a.out_w;
      const T* x = static_cast<const T*>(a.x) + x_plane;
      T* y = static_cast<T*>(a.y) + y_plane;
      const int64_t top = std::max(0, gf::first_tap(int(from) * a.down_y - a.top, a.up_y).pixel);
      const int64_t last = gf::first_tap(int(to - 1) * a.down_y - a.top, a.up_y).pixel;
      const int64_t bottom = std::min(a.in_h, last + (a.filter_h + a.up_y - 1) / a.up_y);
      rows.resize(std::max<int64_t>(0, bottom - top) * row_floats);
      for (int64_t iy = top; iy < bottom; ++iy) line.deal(x + iy * a.in_w * step, a.in_w, step, &rows[(iy - top) * row_floats]);
      for (int64_t oy = from; oy < to; ++oy) {
        gf::first_tap_of first = gf::first_tap(int(oy) * a.down_y - a.top, a.up_y);
        const int high = gf::taps_inside(first, a.up_y, a.filter_h, int(a.in_h));
        for (int p = 0; p < line.phases; ++p) {
          int count = 0;
          for (int i = 0; i < high; ++i)
            for (int j = 0; j < line.count[p]; ++j) {
              const int at = p * line.most + j;
              terms[count++] = {a.filter[(first.tap + i * a.up_y) * a.filter_w + line.tap[at]],
                                rows.data() + (first.pixel + i - top) * row_floats + line.from[at]};
            }
          float* out = sums.data() + p * (line.outputs + kChunk);
          int64_t q = 0;
          for (; q + 3 * kLanes < line.outputs; q += kChunk) sum_chunk(terms.data(), count, q, kLanes, out + q, kLanes);
          for (; q < line.outputs; q += kLanes) sum_lanes(terms.data(), count, q, out + q);
        }
        interleave(sums.data(), line.outputs + kChunk, line.phases, a.out_w, step, y + oy * a.out_w * step);
      }
    }
  });
}

// All channels of one output pixel: terms point at the channels of input pixels.
template <class T>
void sum_channels(const Term* terms, int count, int64_t channels, T* y) {
  if constexpr (std::is_same_v<T, float>) {
    int64_t c = 0;
    for (; c + kChunk <= channels; c += kChunk) sum_chunk(terms, count, c, kLanes, y + c, kLanes);
    for (; c + kLanes <= channels; c += kLanes) sum_lanes(terms, count, c, y + c);
    if (c < channels) sum_lanes(terms, count, channels - kLanes, y + channels - kLanes);  // some of them again
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (int i = 0; i < count; ++i) sum += terms[i].tap * gf::load(reinterpret_cast<const T*>(terms[i].x)[c]);
      gf::store(y + c, sum);
    }
  }
}

// NHWC: pixel by pixel along a row, four of them at once where all taps are inside.
template <class T>
void pixels(const gf_upfirdn2d& a) {
  const int64_t work = a.out_w * a.c * a.filter_h * a.filter_w / (a.up_x * a.up_y);
  const int common = std::gcd(a.up_x, a.down_x), phases = a.up_x / common, streams = a.down_x / common;
  gf::parallel_for(0, a.n * a.out_h, 1 + (1 << 16) / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<Term> terms(a.filter_h * a.filter_w);
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row / a.out_h * a.in_h * a.in_w * a.c;
      T* y = static_cast<T*>(a.y) + row * a.out_w * a.c;
      gf::first_tap_of vertical = gf::first_tap(int(row % a.out_h) * a.down_y - a.top, a.up_y);
      const int high = gf::taps_inside(vertical, a.up_y, a.filter_h, int(a.in_h));
      for (int phase = 0; phase < phases; ++phase)
        for (int64_t ox = phase; ox < a.out_w; ox += phases) {
          const gf::first_tap_of whole = gf::first_tap(int(ox) * a.down_x - a.left, a.up_x);
          gf::first_tap_of across = whole;
          const int wide = gf::taps_inside(across, a.up_x, a.filter_w, int(a.in_w));
          int count = 0;
          for (int i = 0; i < high; ++i)
            for (int j = 0; j < wide; ++j) {
              const float tap = a.filter[(vertical.tap + i * a.up_y) * a.filter_w + across.tap + j * a.up_x];
              const T* pixel = x + ((vertical.pixel + i) * a.in_w + across.pixel + j) * a.c;
              terms[count++] = {tap, reinterpret_cast<const float*>(pixel)};
            }
          if constexpr (std::is_same_v<T, float>) {
            // the same taps serve the outputs of this phase as long as the last of them stays inside
            const int64_t last = whole.pixel + (a.filter_w - whole.tap + a.up_x - 1) / a.up_x - 1;
            int64_t alike = whole.pixel < 0 || wide == 0 || last >= a.in_w ? 0 : (a.in_w - 1 - last) / streams + 1;
            alike = std::min(alike, (a.out_w - ox + phases - 1) / phases) / 4 * 4;
            const int64_t step = streams * a.c, out_step = phases * a.c;
            if (alike && a.c % kLanes == 0) {
              for (int64_t q = 0; q < alike; q += 4)
                for (int64_t c = 0; c < a.c; c += kLanes)
                  sum_chunk(terms.data(), count, q * step + c, step, y + ox * a.c + q * out_step + c, out_step);
              ox += (alike - 1) * phases;
              continue;
            }
          }
          sum_channels(terms.data(), count, a.c, y + ox * a.c);
        }
    }
  });
}

template <class T>
void run(const gf_upfirdn2d& a) {
  const bool vectors = a.c >= kLanes || !std::is_same_v<T, float>;
  a.nhwc && vectors ? pixels<T>(a) : planes<T>(a);
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_upfirdn2d_cpu)(const gf_upfirdn2d* a) {
  if (const gf_status status = gf::check_upfirdn2d(*a); status != GF_OK) return status;
  GF_DISPATCH_DTYPE(a->dtype, T, run<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_upfirdn2d_cpu, gf_upfirdn2d)
