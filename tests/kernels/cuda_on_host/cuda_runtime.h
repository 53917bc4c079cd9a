// CUDA's execution model on a CPU, for tests: the threads of a block are fibers, blocks run one after another.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static const

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "none"; }
template <class Function>
cudaError_t cudaFuncSetAttribute(Function, cudaFuncAttribute, int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  memset(at, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** at, size_t bytes, cudaStream_t) {
  *at = malloc(bytes);
  memset(*at, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* at, cudaStream_t) {
  free(at);
  return cudaSuccess;
}

namespace host_cuda {

inline std::vector<char> shared;
inline void* dynamic_shared() { return reinterpret_cast<void*>((uintptr_t(shared.data()) + 127) & ~uintptr_t(127)); }

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
  dim3 index;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline int current;
inline const std::function<void()>* body;
inline double exchange[1024];

inline void yield() {
  swapcontext(&fibers[current].context, &scheduler);
  threadIdx = fibers[current].index;
}

// A barrier for the fibers [first, last): every one of them has to come, or to have ended.
inline int arrived[34], generation[34];
inline void barrier(int which, int first, int last) {
  const int mine = generation[which];
  ++arrived[which];
  for (;;) {
    int ended = 0;
    for (int i = first; i < last; ++i) ended += fibers[i].done;
    if (generation[which] != mine) return;
    if (arrived[which] + ended >= last - first) {
      arrived[which] = 0;
      ++generation[which];
      return;
    }
    yield();
  }
}

inline void entry() {
  (*body)();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

inline void launch(dim3 grid, dim3 block, size_t bytes, const std::function<void()>& kernel) {
  constexpr size_t kStack = 256 << 10;
  const unsigned threads = block.x * block.y * block.z;
  shared.assign(bytes + 256, char(0xff));  // what is not written is NaN
  fibers.resize(threads);
  body = &kernel;
  blockDim = block, gridDim = grid;
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y));
    std::fill(shared.begin(), shared.end(), char(0xff));
    memset(arrived, 0, sizeof arrived);
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = fibers[t];
      if (!fiber.stack) fiber.stack.reset(new char[kStack]);
      fiber.done = false;
      fiber.index = dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      makecontext(&fiber.context, entry, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (unsigned t = 0; t < threads; ++t) {
        if (fibers[t].done) continue;
        running = true;
        current = int(t);
        threadIdx = fibers[t].index;
        swapcontext(&scheduler, &fibers[t].context);
      }
    }
  }
}

}  // namespace host_cuda

inline void __syncthreads() { host_cuda::barrier(33, 0, int(host_cuda::fibers.size())); }

inline void __syncwarp(unsigned = ~0u) {
  const int warp = host_cuda::current / 32;
  host_cuda::barrier(warp, warp * 32, min(warp * 32 + 32, int(host_cuda::fibers.size())));
}

template <class T>
T shuffle_from(T value, int lane) {
  const int base = host_cuda::current / 32 * 32;
  memcpy(&host_cuda::exchange[host_cuda::current], &value, sizeof value);
  __syncwarp();
  T other;
  memcpy(&other, &host_cuda::exchange[base + (lane & 31)], sizeof other);
  __syncwarp();
  return other;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) { return shuffle_from(value, (host_cuda::current & 31) ^ mask); }
template <class T>
T __shfl_down_sync(unsigned, T value, int delta) { return shuffle_from(value, (host_cuda::current & 31) + delta); }
template <class T>
T __shfl_sync(unsigned, T value, int lane) { return shuffle_from(value, lane); }

template <class T>
T __ldg(const T* at) { return *at; }
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
