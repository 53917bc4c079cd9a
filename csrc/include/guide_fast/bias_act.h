/* y = clamp(act(x + bias) * gain); kernels/bias_act/README.md has the formula. */
#ifndef GUIDE_FAST_BIAS_ACT_H
#define GUIDE_FAST_BIAS_ACT_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements are [outer, channels, inner]: NCHW has inner = H * W, NHWC has inner = 1. */
typedef struct {
  gf_dtype dtype;
  int64_t outer, channels, inner;
  const void* x;
  const void* bias; /* [channels], may be NULL */
  void* y;
  gf_activation activation;
  float slope, gain;
  float clamp; /* negative: none */
} gf_bias_act;

/* gx = gy * dy/dx, from the output y alone. */
typedef struct {
  gf_dtype dtype;
  int64_t outer, channels, inner;
  const void* gy;
  const void* y;
  void* gx;
  gf_activation activation;
  float slope, gain;
  float clamp;
} gf_bias_act_backward;

GF_API gf_status gf_bias_act_cpu(const gf_bias_act* arguments);
GF_API gf_status gf_bias_act_backward_cpu(const gf_bias_act_backward* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_bias_act_cuda(const gf_bias_act* arguments, void* stream);
GF_API gf_status gf_bias_act_backward_cuda(const gf_bias_act_backward* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
