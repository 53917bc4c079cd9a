// Native CPU path of face_crop: banded rows instead of dense matrices, a row at a time in the cache.
#include <algorithm>
#include <vector>

#include "dispatch_dtype.h"
#include "face_crop.cuh"
#include "isa.h"
#include "lanes.h"
#include "parallel.h"

namespace {

constexpr int64_t kRows = 32;  // output rows of a task

struct Span {
  int64_t begin, end;
};

// The outputs that have a weight, and the inputs that they read.
Span outputs_of(const gf_axis& axis) {
  Span span{0, axis.out};
  while (span.begin < span.end && !gf::touched(axis, span.begin)) ++span.begin;
  while (span.begin < span.end && !gf::touched(axis, span.end - 1)) --span.end;
  return span;
}

Span inputs_of(const gf_axis& axis, const Span& outputs) {
  if (outputs.begin == outputs.end) return {0, 0};
  return {axis.start[outputs.begin], axis.start[outputs.end - 1] + axis.taps};
}

template <class T>
struct Crop {
  const gf_face_crop& a;
  Span outputs, inputs;  // of columns

  explicit Crop(const gf_face_crop& arguments)
      : a(arguments), outputs(outputs_of(a.columns)), inputs(inputs_of(a.columns, outputs)) {}

  int64_t step() const { return a.nhwc ? 3 : 1; }

  const T* image_row(int64_t n, int64_t channel, int64_t row) const {
    const int64_t pixels = a.rows.in * a.columns.in;
    return static_cast<const T*>(a.x) + n * 3 * pixels + a.source[channel] * (a.nhwc ? 1 : pixels) +
           row * a.columns.in * step();
  }

  // Along a row: in[column * stride] -> out[column], for the outputs that have weights.
  template <class In>
  void along(const In* in, int64_t stride, float* out) const {
    std::fill(out + outputs.begin, out + outputs.end, 0.f);
    for (int64_t k = 0; k < a.columns.taps; ++k) {
      const float* weight = a.columns.weight + k * a.columns.out;
      for (int64_t j = outputs.begin; j < outputs.end; ++j)
        out[j] += weight[j] * gf::load(in[(a.columns.start[j] + k) * stride]);
    }
  }

  // Down the columns: rows(k) of `count` elements, weighted for output row `row`, summed into out.
  template <class In, class Rows>
  void down(int64_t row, int64_t count, float* out, const Rows& rows) const {
    for (int64_t j = 0; j < count; j += kLanes) {
      lanes sum = {};
      for (int64_t k = 0; k < a.rows.taps; ++k) {
        const In* from = rows(k);
        sum += a.rows.weight[k * a.rows.out + row] * load_lanes(from + j, count - j);
      }
      store_lanes(out + j, sum, count - j);
    }
  }

  void write(int64_t n, int64_t channel, int64_t row, const float* sums) const {
    T* y = static_cast<T*>(a.y) + ((n * 3 + channel) * a.rows.out + row) * a.columns.out;
    const float scale = a.scale[channel], offset = a.offset[channel];
    const Span some = sums ? outputs : Span{a.columns.out, a.columns.out};
    for (int64_t j = 0; j < some.begin; ++j) gf::store(y + j, offset);
    for (int64_t j = some.begin; j < some.end; ++j) gf::store(y + j, sums[j] * scale + offset);
    for (int64_t j = some.end; j < a.columns.out; ++j) gf::store(y + j, offset);
  }

  // Fewer rows out than in: down first, so that the slower pass along the row runs on fewer rows.
  void shrink(int64_t n, int64_t begin, int64_t end) const {
    const int64_t planes = a.nhwc ? 1 : 3, count = (inputs.end - inputs.begin) * step();
    std::vector<float> sums(static_cast<size_t>(count)), out(static_cast<size_t>(a.columns.out));
    for (int64_t row = begin; row < end; ++row)
      for (int64_t plane = 0; plane < planes; ++plane) {
        if (!gf::touched(a.rows, row)) {
          for (int64_t c = 0; c < 3; ++c)
            if (a.nhwc || c == plane) write(n, c, row, nullptr);
          continue;
        }
        // an NHWC row holds all channels: they go down together
        const int64_t base = a.nhwc ? -a.source[plane] : 0;
        const T* first = image_row(n, plane, a.rows.start[row]) + base + inputs.begin * step();
        down<T>(row, count, sums.data(), [&](int64_t k) { return first + k * a.columns.in * step(); });
        for (int64_t c = 0; c < 3; ++c) {
          if (!a.nhwc && c != plane) continue;
          along(sums.data() + (a.nhwc ? a.source[c] : 0) - inputs.begin * step(), step(), out.data());
          write(n, c, row, out.data());
        }
      }
  }

  // More rows out than in: along first, each input row once, kept while output rows still read it.
  void grow(int64_t n, int64_t begin, int64_t end) const {
    const int64_t width = a.columns.out, ring = a.rows.taps;
    std::vector<float> kept(static_cast<size_t>(ring * width)), out(static_cast<size_t>(width));
    for (int64_t c = 0; c < 3; ++c) {
      int64_t ready = -1;  // the last input row in `kept`
      for (int64_t row = begin; row < end; ++row) {
        if (!gf::touched(a.rows, row)) {
          write(n, c, row, nullptr);
          continue;
        }
        const int64_t start = a.rows.start[row];
        for (int64_t i = std::max(ready + 1, start); i < start + ring; ++i)
          along(image_row(n, c, i), step(), kept.data() + i % ring * width);
        ready = std::max(ready, start + ring - 1);
        down<float>(row, outputs.end - outputs.begin, out.data() + outputs.begin,
                    [&](int64_t k) { return kept.data() + (start + k) % ring * width + outputs.begin; });
        write(n, c, row, out.data());
      }
    }
  }
};

template <class T>
void run(const gf_face_crop& a) {
  const Crop<T> crop(a);
  const int64_t tasks = (a.rows.out + kRows - 1) / kRows;
  gf::parallel_for(0, a.batch * tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % tasks * kRows, last = std::min(first + kRows, a.rows.out);
      if (a.rows.out < a.rows.in)
        crop.shrink(i / tasks, first, last);
      else
        crop.grow(i / tasks, first, last);
    }
  });
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_face_crop_cpu)(const gf_face_crop* a) {
  GF_DISPATCH_DTYPE(a->dtype, T, run<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_face_crop_cpu, gf_face_crop)
