/* Style-modulated depthwise 3x3 then 1x1 convolution; kernels/separable_conv2d/README.md has the formula. */
#ifndef GUIDE_FAST_SEPARABLE_CONV2D_H
#define GUIDE_FAST_SEPARABLE_CONV2D_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = clamp(act(pointwise(depthwise(style * u)) + noise + bias) * gain) * next_style;
   u is x, or the inverse Haar wavelet of haar_style * x. The CPU takes float32. */
typedef struct {
  gf_dtype dtype;
  int nhwc; /* layout of x and y: NHWC, or NCHW where it is 0 */
  int64_t n, inputs, outputs, h, w; /* y [n, outputs, h, w] */
  const void* x;          /* [n, inputs, h, w]; with haar_style [n, 4 inputs, h / 2, w / 2] */
  const void* haar_style; /* [n, 4 inputs], or NULL */
  const void* depthwise;  /* [inputs, 3, 3], or NULL: pointwise alone */
  const void* pointwise;  /* [outputs, inputs] */
  const void* style;      /* [n, inputs] */
  const void* noise;      /* [noise_n, h, w], or NULL */
  int64_t noise_n;        /* 1 or n */
  const void* bias;       /* [outputs], or NULL */
  const void* next_style; /* [n, outputs], or NULL */
  void* y;
  gf_activation activation;
  float slope, gain;
  float clamp; /* negative: none */
} gf_separable_conv2d;

/* Gradients from gy and from y (made without next_style); NULL where one is not asked for, else written whole.
   Sums over pixels are float32 whatever the dtype. */
typedef struct {
  gf_dtype dtype;
  int nhwc;
  int64_t n, inputs, outputs, h, w;
  const void* gy;
  const void* y;
  const void* x;
  const void* haar_style;
  const void* depthwise;
  const void* pointwise;
  const void* style;
  int64_t noise_n;
  void* gx;           /* as x */
  float* ghaar_style; /* [n, 4 inputs] */
  float* gdepthwise;  /* [inputs, 3, 3] */
  float* gpointwise;  /* [outputs, inputs] */
  float* gstyle;      /* [n, inputs] */
  float* gnoise;      /* [noise_n, h, w] */
  float* gbias;       /* [outputs] */
  void* g;            /* scratch as y for CUDA: gradient before the activation; the CPU takes NULL */
  void* t;            /* scratch [n, inputs, h, w] for CUDA: gradient between the convolutions; the CPU takes NULL */
  gf_activation activation;
  float slope, gain;
  float clamp;
} gf_separable_conv2d_backward;

GF_API gf_status gf_separable_conv2d_cpu(const gf_separable_conv2d* arguments);
GF_API gf_status gf_separable_conv2d_backward_cpu(const gf_separable_conv2d_backward* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_separable_conv2d_cuda(const gf_separable_conv2d* arguments, void* stream);
GF_API gf_status gf_separable_conv2d_backward_cuda(const gf_separable_conv2d_backward* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
