// Enough of CUDA to run a kernel's source on the host: every thread of a block is a fiber, blocks run one by one.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint4 {
  uint32_t x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t) { return std::memset(p, v, n), cudaSuccess; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host_cuda {

constexpr int kWarp = 32;
constexpr size_t kStack = 1 << 17;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  bool done = false;
};

// A barrier of the threads that are still running.
struct Barrier {
  int arrived = 0, alive = 0, generation = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  Barrier all;
  std::vector<float> exchanged;
  ucontext_t scheduler;
  const std::function<void()>* body = nullptr;
};
inline Block block;

inline void yield() { swapcontext(&block.fibers[threadIdx.x].context, &block.scheduler); }

inline void release_if_complete(Barrier& b) {
  if (b.alive > 0 && b.arrived == b.alive) b.arrived = 0, ++b.generation;
}

inline void wait(Barrier& b) {
  const int generation = b.generation;
  ++b.arrived;
  release_if_complete(b);
  while (b.generation == generation) yield();
}

inline void run_thread() {
  (*block.body)();
  Barrier& warp = block.warps[threadIdx.x / kWarp];
  block.fibers[threadIdx.x].done = true;
  --block.all.alive, --warp.alive;
  release_if_complete(block.all);
  release_if_complete(warp);
  swapcontext(&block.fibers[threadIdx.x].context, &block.scheduler);
}

inline void launch(dim3 grid, unsigned threads, const std::function<void()>& body) {
  gridDim = grid, blockDim = dim3(threads);
  block.body = &body;
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.exchanged.assign(threads, 0.f);
  for (unsigned at = 0; at < grid.x * grid.y * grid.z; ++at) {
    blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y);
    block.all = {0, int(threads), 0};
    block.warps.assign(threads / kWarp, Barrier{0, kWarp, 0});
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& f = block.fibers[t];
      f.done = false;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.data();
      f.context.uc_stack.ss_size = f.stack.size();
      f.context.uc_link = nullptr;
      makecontext(&f.context, run_thread, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (unsigned t = 0; t < threads; ++t)
        if (!block.fibers[t].done) {
          running = true;
          threadIdx = dim3(t);
          swapcontext(&block.scheduler, &block.fibers[t].context);
        }
    }
  }
}

}  // namespace host_cuda

inline void __syncthreads() { host_cuda::wait(host_cuda::block.all); }

inline float __shfl_xor_sync(unsigned, float v, int mask) {
  using namespace host_cuda;
  const unsigned me = threadIdx.x;
  Barrier& warp = block.warps[me / kWarp];
  block.exchanged[me] = v;
  wait(warp);
  const float got = block.exchanged[me ^ unsigned(mask)];
  wait(warp);
  return got;
}

inline float atomicAdd(float* at, float v) {
  const float before = *at;
  *at += v;
  return before;
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
