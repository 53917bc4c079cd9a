// Vectors of the instruction set at hand: activations, small matrix products for the native CPU path.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace gf::triplane {
namespace {  // a copy for every instruction set

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t ivec __attribute__((vector_size(kLanes * 4)));

inline vec load_vec(const float* at) {
  vec v;
  memcpy(&v, at, sizeof v);
  return v;
}

inline void store_vec(float* at, vec v) { memcpy(at, &v, sizeof v); }
inline vec splat(float x) { return x - vec{}; }

inline float sum_of(vec v) {
  float lanes[kLanes], sum = 0;
  store_vec(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  sum = lanes[0];
  return sum;
}

// e^x for x <= 0, to 2 ulp; below -87 as at -87
inline vec exp_of(vec x) {
  x = x < -87.f ? splat(-87.f) : x;
  const vec magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec shifted = x * 1.44269504f + magic;
  const vec n = shifted - magic;
  const vec r = x - n * 0.693359375f - n * -2.12194440e-4f;  // log 2 in two parts: the first times n is exact
  vec p = r * 1.394858079e-03f + 8.375128890e-03f;
  p = p * r + 4.166621827e-02f;
  p = p * r + 1.666641548e-01f;
  p = p * r + 5.000000108e-01f;
  p = p * r + 1.000000038e+00f;
  p = p * r + 1.f;
  const ivec exponent = ((ivec)shifted - (ivec)magic + 127) << 23;
  return p * (vec)exponent;
}

// log(1 + t) for t in [0, 1], to 2e-7 of its value
inline vec log1p_of(vec t) {
  vec p = t * 2.037690499e-03f - 1.344483097e-02f;
  p = p * t + 4.155762251e-02f;
  p = p * t - 8.253533205e-02f;
  p = p * t + 1.242510293e-01f;
  p = p * t - 1.610863193e-01f;
  p = p * t + 1.989153748e-01f;
  p = p * t - 2.498739275e-01f;
  p = p * t + 3.333256918e-01f;
  p = p * t - 4.999998172e-01f;
  p = p * t + 1.f;
  return p * t;
}

struct Activated {
  vec softplus, slope;  // slope: the logistic function
};

inline Activated activate_vec(vec x) {
  const vec small = exp_of(x < 0 ? x : -x);
  const vec inverse = 1.f / (1.f + small);
  return {(x < 0 ? vec{} : x) + log1p_of(small), x < 0 ? small * inverse : inverse};
}

// out [rows, N] = a [rows, K] b [K, N] (+ bias [N]); rows is a multiple of kRows
constexpr int kRows = 6;

template <int K, int N>
void multiply(const float* a, int rows, const float* b, const float* bias, float* out) {
  constexpr int kVectors = N / kLanes < 4 && kLanes == 16 ? N / kLanes : kLanes == 16 ? 4 : 2;
  for (int r = 0; r < rows; r += kRows)
    for (int n = 0; n < N; n += kVectors * kLanes) {
      vec sums[kRows][kVectors];
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kVectors; ++v) sums[i][v] = bias ? load_vec(bias + n + v * kLanes) : vec{};
      for (int k = 0; k < K; ++k) {
        vec columns[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) columns[v] = load_vec(b + k * N + n + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const vec row = splat(a[(r + i) * K + k]);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) sums[i][v] += row * columns[v];
        }
      }
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kVectors; ++v) store_vec(out + (r + i) * N + n + v * kLanes, sums[i][v]);
    }
}

// out [M, N] += a^T b for a [rows, M], b [rows, N]
template <int M, int N>
void multiply_transposed(const float* a, const float* b, int rows, float* out) {
  constexpr int kVectors = 2, kTall = kLanes == 16 ? 8 : 4;
  for (int m = 0; m < M; m += kTall)
    for (int n = 0; n < N; n += kVectors * kLanes) {
      vec sums[kTall][kVectors];
      for (int i = 0; i < kTall; ++i)
        for (int v = 0; v < kVectors; ++v) sums[i][v] = load_vec(out + (m + i) * N + n + v * kLanes);
      for (int k = 0; k < rows; ++k) {
        vec columns[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) columns[v] = load_vec(b + k * N + n + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kTall; ++i) {
          const vec row = splat(a[k * M + m + i]);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) sums[i][v] += row * columns[v];
        }
      }
      for (int i = 0; i < kTall; ++i)
        for (int v = 0; v < kVectors; ++v) store_vec(out + (m + i) * N + n + v * kLanes, sums[i][v]);
    }
}

// Aligned floats that start at zero.
class Scratch {
 public:
  explicit Scratch(size_t count) : bytes_((count * sizeof(float) + 63) / 64 * 64) {
    at_ = static_cast<float*>(std::aligned_alloc(64, bytes_));
    if (!at_) throw std::bad_alloc();
    std::memset(at_, 0, bytes_);
  }
  ~Scratch() { std::free(at_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return at_; }
  float& operator[](size_t i) const { return at_[i]; }

 private:
  size_t bytes_;
  float* at_;
};

}  // namespace
}  // namespace gf::triplane
