// Tensor-core fragments for kernels that run on the host: each thread holds the whole tile, products sum in fp32.
#pragma once

#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

inline float number(float value) { return value; }
inline float number(__half value) { return __half2float(value); }
inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static constexpr bool kA = std::is_same_v<Use, matrix_a>, kB = std::is_same_v<Use, matrix_b>;
  static constexpr int rows = kB ? K : M, columns = kA ? K : N, num_elements = rows * columns;
  float x[num_elements];
};

template <class F>
void fill_fragment(F& f, float value) {
  for (float& x : f.x) x = value;
}

template <class Use, int M, int N, int K, class T, class Layout, class Stored>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const Stored* at, unsigned stride) {
  using F = fragment<Use, M, N, K, T, Layout>;
  for (int r = 0; r < F::rows; ++r)
    for (int c = 0; c < F::columns; ++c)
      f.x[r * F::columns + c] = number(std::is_same_v<Layout, col_major> ? at[c * stride + r] : at[r * stride + c]);
}

template <class A, class B, class C>
void mma_sync(C& d, const A& a, const B& b, const C& c) {
  for (int m = 0; m < A::rows; ++m)
    for (int n = 0; n < B::columns; ++n) {
      float sum = c.x[m * B::columns + n];
      for (int k = 0; k < A::columns; ++k) sum += a.x[m * A::columns + k] * b.x[k * B::columns + n];
      d.x[m * B::columns + n] = sum;
    }
}

template <int M, int N, int K>
void store_matrix_sync(float* at, const fragment<accumulator, M, N, K, float>& f, unsigned stride, layout_t layout) {
  for (int r = 0; r < M; ++r)
    for (int c = 0; c < N; ++c) at[layout == mem_row_major ? r * stride + c : c * stride + r] = f.x[r * N + c];
  __syncwarp();
}

}  // namespace nvcuda::wmma
