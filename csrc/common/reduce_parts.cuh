// Sums that blocks leave in parts: added in the order of the parts, so that the total does not depend on timing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gf {
namespace {

constexpr int kReduceThreads = 256;

// out[image, i] = sum over parts of parts[image, part, i]
__global__ void __launch_bounds__(kReduceThreads) reduce_parts_kernel(const float* parts, float* out, int64_t images,
                                                                      int64_t count, int64_t length) {
  const int64_t stride = int64_t(gridDim.x) * kReduceThreads;
  for (int64_t i = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x; i < images * length; i += stride) {
    const float* from = parts + i / length * count * length + i % length;
    float sum = 0;
    for (int64_t part = 0; part < count; ++part) sum += from[part * length];
    out[i] = sum;
  }
}

inline void reduce_parts(const float* parts, float* out, int64_t images, int64_t count, int64_t length,
                         cudaStream_t stream) {
  const int64_t blocks = (images * length + kReduceThreads - 1) / kReduceThreads;
  const int grid = int(blocks < 65535 ? blocks : 65535);
  reduce_parts_kernel<<<grid, kReduceThreads, 0, stream>>>(parts, out, images, count, length);
}

}  // namespace
}  // namespace gf
