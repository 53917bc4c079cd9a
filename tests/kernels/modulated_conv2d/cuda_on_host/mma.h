// Tensor-core tiles on the host: the first lane of a warp holds the whole 16 x 16 matrix and does the work.
#pragma once

#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  T v[16][16];
};

inline bool works() { return threadIdx.x % host_cuda::kWarp == 0; }

template <class F>
void fill_fragment(F& f, float v) {
  for (auto& row : f.v)
    for (auto& x : row) x = v;
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* at, unsigned stride) {
  if (!works()) return;
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned j = 0; j < 16; ++j)
      f.v[i][j] = std::is_same_v<Layout, row_major> ? at[i * stride + j] : at[j * stride + i];
}

template <class Sum, class A, class B>
void mma_sync(Sum& d, const A& a, const B& b, const Sum& c) {
  if (!works()) return;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      float sum = c.v[i][j];
      for (int k = 0; k < 16; ++k) sum += as_float(a.v[i][k]) * as_float(b.v[k][j]);
      d.v[i][j] = sum;
    }
}

template <class Sum>
void store_matrix_sync(float* to, const Sum& f, unsigned stride, layout_t) {
  if (!works()) return;
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned j = 0; j < 16; ++j) to[i * stride + j] = f.v[i][j];
}

}  // namespace nvcuda::wmma
