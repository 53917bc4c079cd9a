// Rows of pixels with the channels side by side: loading, depthwise 3x3, storing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "separable_conv2d_product.h"

namespace {

// Memory of one thread that is kept between calls: fresh pages cost more than the arithmetic on them.
class Scratch {
 public:
  float* take(int64_t count) {
    if (count > size_) {
      data_.reset(static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t(64))));
      size_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* at) const { ::operator delete[](at, std::align_val_t(64)); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

// scale * values [rows, count] -> [rows][step]; what is added is zero, and all of it where values is NULL.
inline std::vector<float> padded(const void* values, int64_t rows, int64_t count, int64_t step, float scale = 1.f) {
  std::vector<float> out(rows * step, 0.f);
  if (values)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; ++i) out[r * step + i] = scale * static_cast<const float*>(values)[r * count + i];
  return out;
}

// Row `row` of image n of x [n, channels, h, w] -> out [w][step]; channels beyond become zero.
inline void load_row(const float* x, bool nhwc, int64_t channels, int64_t h, int64_t w, int64_t n, int64_t row,
                     float* out, int64_t step) {
  for (int64_t j = 0; j < w; ++j) {
    float* at = out + j * step;
    if (nhwc) {
      std::memcpy(at, x + ((n * h + row) * w + j) * channels, channels * sizeof(float));
    } else {
      for (int64_t c = 0; c < channels; ++c) at[c] = x[((n * channels + c) * h + row) * w + j];
    }
    for (int64_t c = channels; c < step; ++c) at[c] = 0.f;
  }
}

// The reverse for channels [first, first + count) of x; `in` begins at channel `first`.
inline void store_row(float* x, bool nhwc, int64_t channels, int64_t h, int64_t w, int64_t n, int64_t row,
                      int64_t first, int64_t count, const float* in, int64_t step) {
  if (nhwc) {
    for (int64_t j = 0; j < w; ++j)
      std::memcpy(x + ((n * h + row) * w + j) * channels + first, in + j * step, count * sizeof(float));
  } else {
    for (int64_t c = 0; c < count; ++c)
      for (int64_t j = 0; j < w; ++j) x[((n * channels + first + c) * h + row) * w + j] = in[j * step + c];
  }
}

// Pixels [from, from + Count) of a depthwise row, one vector of channels; columns outside the image are left out.
template <int Count, bool Edge>
GF_INLINE void depthwise_pixels(const float* const (&rows)[3], int64_t step, int64_t w, const float* weight,
                                int64_t weight_step, int64_t from, float* out, int64_t out_step) {
  vec k[9];
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i) k[i] = load_vec(weight + i * weight_step);
  vec sums[Count];
#pragma GCC unroll 8
  for (int p = 0; p < Count; ++p) sums[p] = vec{};
#pragma GCC unroll 10
  for (int column = -1; column <= Count; ++column) {
    if (Edge && (from + column < 0 || from + column >= w)) continue;
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      const vec x = load_vec(rows[r] + (from + column) * step);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        const int p = column + 1 - j;
        if (p >= 0 && p < Count) sums[p] += x * k[3 * r + j];
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < Count; ++p) store_vec(out + p * out_step, sums[p]);
}

// out[j, c] = sum over r, k of rows[r][j + k - 1, c] * weight[3 r + k][c]; channels a multiple of kLanes.
// rows [w][step], weight [9][weight_step], out [w][out_step].
inline void depthwise_row(const float* const (&rows)[3], int64_t step, int64_t w, int64_t channels, const float* weight,
                          int64_t weight_step, float* out, int64_t out_step) {
#if defined(__AVX512F__)
  constexpr int kCount = 8;
#else
  constexpr int kCount = 4;
#endif
  int64_t j = 0;
  while (j < w) {
    const bool inner = j > 0 && j + kCount < w;
    for (int64_t c = 0; c < channels; c += kLanes) {
      const float* const at[3] = {rows[0] + c, rows[1] + c, rows[2] + c};
      float* to = out + j * out_step + c;
      if (inner)
        depthwise_pixels<kCount, false>(at, step, w, weight + c, weight_step, j, to, out_step);
      else
        depthwise_pixels<1, true>(at, step, w, weight + c, weight_step, j, to, out_step);
    }
    j += inner ? kCount : 1;
  }
}

// weight [channels, 3, 3] times scale -> [9][step]; `flip` turns it by 180 degrees.
inline void pack_depthwise(const float* weight, const float* scale, int64_t channels, int64_t step, bool flip,
                           float* out) {
  for (int k = 0; k < 9; ++k)
    for (int64_t c = 0; c < step; ++c)
      out[k * step + c] = c < channels ? weight[9 * c + (flip ? 8 - k : k)] * (scale ? scale[c] : 1.f) : 0.f;
}

// The rows u of one image in order, held in a ring: x itself, or the wavelet of it.
class UpRows {
 public:
  struct Source {
    const float* x;
    const float* half;  // [n, 4 channels] of the wavelet, half its style; NULL: none
    bool nhwc;
    int64_t n, channels, h, w;  // of u
  };

  UpRows(const Source& source, int64_t image, int64_t capacity)
      : source_(source),
        image_(image),
        capacity_(capacity),
        step_(round_up(source.channels, kLanes)),
        direct_(!source.half && source.nhwc && step_ == source.channels) {}

  int64_t floats() const {
    if (direct_) return step_ * source_.w;
    return (capacity_ + 1) * source_.w * step_ + (source_.half ? source_.w / 2 * 4 * source_.channels : 0);
  }

  // `memory` of floats(); rows from `first` on will be asked for.
  void begin(float* memory, int64_t first) {
    zeros_ = memory;
    ring_ = memory + step_ * source_.w;
    made_ = std::max<int64_t>(0, first);
    if (source_.half) made_ -= made_ % 2;
    std::fill(zeros_, ring_, 0.f);
    if (!direct_ && step_ != source_.channels) std::fill(ring_, ring_ + capacity_ * source_.w * step_, 0.f);
  }

  int64_t step() const { return step_; }

  // What `count` rows from `row` on will be made of.
  Soon soon(int64_t row, int64_t count) const {
    if (!source_.nhwc) return {};
    const int64_t up = source_.half ? 2 : 1, line = source_.w / up * source_.channels * up * up;
    const int64_t rows = source_.h / up, from = (row + up - 1) / up, to = std::min(rows, (row + count + up - 1) / up);
    if (from >= to) return {};
    return {{source_.x + (image_ * rows + from) * line}, {(to - from) * line}};
  }

  // Row `row` [w][step]; zeros outside the image. A row keeps until capacity - 2 later ones are made.
  const float* row(int64_t row) {
    if (row < 0 || row >= source_.h) return zeros_;
    if (direct_) return source_.x + (image_ * source_.h + row) * source_.w * step_;
    while (made_ <= row) make();
    return at(row);
  }

 private:
  float* at(int64_t row) const { return ring_ + row % capacity_ * source_.w * step_; }

  void make() {
    if (!source_.half) {
      load_row(source_.x, source_.nhwc, source_.channels, source_.h, source_.w, image_, made_, at(made_), step_);
      ++made_;
      return;
    }
    const int64_t bands = 4 * source_.channels, w = source_.w / 2;
    const float* x = source_.x + (image_ * source_.h / 2 + made_ / 2) * w * bands;
    if (!source_.nhwc) {
      float* line = ring_ + capacity_ * source_.w * step_;
      load_row(source_.x, false, bands, source_.h / 2, w, image_, made_ / 2, line, bands);
      x = line;
    }
    for (int64_t j = 0; j < w; ++j)
      synthesise(x + j * bands, source_.half + image_ * bands, source_.channels, at(made_) + 2 * j * step_,
                 at(made_ + 1) + 2 * j * step_, step_);
    made_ += 2;
  }

  Source source_;
  int64_t image_, capacity_, step_;
  bool direct_;
  float *zeros_ = nullptr, *ring_ = nullptr;
  int64_t made_ = 0;
};

}  // namespace
