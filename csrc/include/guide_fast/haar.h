/* Inverse Haar wavelet of x * style; kernels/haar/README.md has the formula. */
#ifndef GUIDE_FAST_HAAR_H
#define GUIDE_FAST_HAAR_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Channel 4c + b of x is band b of channel c of y. Layout of both: NHWC, or NCHW where nhwc is 0. */
typedef struct {
  gf_dtype dtype;
  int nhwc;
  int64_t n, channels, h, w; /* x [n, 4 channels, h, w], y [n, channels, 2h, 2w] */
  const void* x;
  const void* style; /* [n, 4 channels], may be NULL */
  void* y;
} gf_haar;

/* gx = style * analysis(gy), gstyle = sum over pixels of analysis(gy) * x; NULL where it is not asked for. */
typedef struct {
  gf_dtype dtype;
  int nhwc;
  int64_t n, channels, h, w;
  const void* gy;
  const void* x;     /* read for gstyle alone, else may be NULL */
  const void* style; /* may be NULL */
  void* gx;
  float* gstyle; /* [n, 4 channels], written whole */
} gf_haar_backward;

GF_API gf_status gf_haar_cpu(const gf_haar* arguments);
GF_API gf_status gf_haar_backward_cpu(const gf_haar_backward* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_haar_cuda(const gf_haar* arguments, void* stream);
GF_API gf_status gf_haar_backward_cuda(const gf_haar_backward* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
