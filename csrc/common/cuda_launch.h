// What every CUDA launcher needs: grid sizes, dtype dispatch, errors as gf_status.
#pragma once

#include <cuda_runtime.h>

#include "arguments.h"
#include "element.h"
#include "guide_fast/status.h"

namespace gf {

// Blocks of a grid-stride loop over `total` elements: enough to fill any device, few enough to launch quickly.
inline int blocks_for(int64_t total, int threads) {
  const int64_t blocks = (total + threads - 1) / threads;
  return int(blocks < 65535 ? blocks : 65535);
}

inline gf_status launched(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return GF_OK;
  return gf_fail(GF_CUDA_ERROR, "%s could not be launched: %s", kernel, cudaGetErrorString(error));
}

}  // namespace gf

#include "dispatch_dtype.h"
