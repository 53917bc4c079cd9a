/* Up-sampling by zeros, padding, FIR filter, down-sampling; kernels/upfirdn2d/README.md has the formula. */
#ifndef GUIDE_FAST_UPFIRDN2D_H
#define GUIDE_FAST_UPFIRDN2D_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[oy, ox] = sum over taps of filter[ky, kx] * (x up-sampled)[oy * down_y - top + ky, ox * down_x - left + kx];
   outside the image there are zeros, so right and bottom padding follow from the output's size.
   The gradient of x is the same operation: swap up with down and in with out, reverse the filter in both axes, let
   left be filter_w - 1 - left, top be filter_h - 1 - top. */
typedef struct {
  gf_dtype dtype;
  int nhwc; /* 0: [n, c, h, w] in memory, 1: [n, h, w, c] */
  int64_t n, c, in_h, in_w, out_h, out_w;
  const void* x;
  const float* filter; /* [filter_h, filter_w] as correlation: reversed for a convolution, gain folded in */
  void* y;
  int filter_h, filter_w;
  int up_x, up_y, down_x, down_y; /* from 1 on */
  int left, top;                  /* padding after up-sampling; negative crops */
} gf_upfirdn2d;

/* GF_INVALID when a factor or a size is below 1. */
GF_API gf_status gf_upfirdn2d_cpu(const gf_upfirdn2d* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_upfirdn2d_cuda(const gf_upfirdn2d* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
