// Vectors of elements between memory and fp32 registers: one load of up to 16 bytes, hardware conversions on a device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "element.h"

namespace gf {

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(half_bits value) { return __half2float(__ushort_as_half(value.bits)); }
__device__ __forceinline__ float widen(bfloat16_bits value) { return load(value); }  // a shift

__device__ __forceinline__ void narrow(float* at, float value) { *at = value; }
__device__ __forceinline__ void narrow(half_bits* at, float value) { at->bits = __half_as_ushort(__float2half_rn(value)); }
__device__ __forceinline__ void narrow(bfloat16_bits* at, float value) {
  at->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// N elements that lie together, N * sizeof(T) aligned
template <class T, int N>
struct alignas(N * sizeof(T)) pack {
  T element[N];
};

template <int N, class T>
__device__ __forceinline__ void load_vector(const T* at, float (&values)[N]) {
  const pack<T, N> packed = *reinterpret_cast<const pack<T, N>*>(at);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = widen(packed.element[i]);
}

template <int N, class T>
__device__ __forceinline__ void store_vector(T* at, const float (&values)[N]) {
  pack<T, N> packed;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(&packed.element[i], values[i]);
  *reinterpret_cast<pack<T, N>*>(at) = packed;
}

// elements of a 16-byte vector
template <class T>
constexpr int kVector = 16 / int(sizeof(T));

inline bool aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace gf
