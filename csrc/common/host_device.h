// Marks functions that a host compiler and nvcc both build, so that device arithmetic is tested on the CPU.
#pragma once

#ifdef __CUDACC__
#define GF_HD __host__ __device__ __forceinline__
#else
#define GF_HD inline
#endif
