/* A modulated convolution with the rest of its layer; kernels/modulated_conv2d/README.md has the formulas. */
#ifndef GUIDE_FAST_MODULATED_CONV2D_H
#define GUIDE_FAST_MODULATED_CONV2D_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Once per weight: it is laid out for the kernels, its power summed. */
typedef struct {
  gf_dtype dtype;
  int64_t out_channels, in_channels;
  int32_t kernel;     /* 1 or 3 */
  const void* weight; /* [out_channels, in_channels, kernel, kernel] */
  void* packed;       /* [kernel * kernel, in_channels, out_channels], written; NULL on the CPU: power alone */
  float* power;       /* [out_channels, in_channels], written: sums of W^2; NULL without demodulation */
} gf_modulated_conv2d_weight;

/* Elements lie as NHWC. The output is [n, up * height, up * width, out_channels]. */
typedef struct {
  gf_dtype dtype;
  int64_t n, in_channels, out_channels, height, width; /* of x */
  int32_t kernel, up;                                  /* 1 or 3; 1 or 2 */
  int32_t premodulated;                                /* x already carries the style, which then only demodulates */
  const void* x;                                       /* [n, height, width, in_channels] */
  const void* packed;                                  /* of gf_modulated_conv2d_weight */
  const float* power;                                  /* NULL: no demodulation */
  const void* style;                                   /* [n, in_channels] */
  const void* noise;                                   /* [n or 1, up * height, up * width], may be NULL */
  int64_t noise_stride;                                /* from image to image; 0: all share one */
  const void* bias;                                    /* [out_channels], may be NULL */
  const void* next_style;                              /* [n, out_channels], may be NULL */
  float* demod;                                        /* [n, out_channels], written; needed with power */
  void* z; /* scratch of up = 2: [n, 2 * height + kernel - 2, 2 * width + kernel - 2, out_channels] */
  void* y;
  gf_activation activation;
  float slope, gain;
  float clamp; /* negative: none */
} gf_modulated_conv2d;

/* Gradients; an output that is NULL is not computed. Only with next_style NULL in the forward pass. */
typedef struct {
  gf_dtype dtype;
  int64_t n, in_channels, out_channels, height, width;
  int32_t kernel, up, premodulated;
  const void* gy;     /* as y */
  const void* y;      /* of the forward pass, as demod */
  const void* x;
  const void* packed;
  const float* power; /* NULL: no demodulation */
  const void* style;
  const void* noise;
  int64_t noise_stride;
  const void* bias;
  const float* demod;
  void* g;        /* scratch as y */
  void* gz;       /* scratch of up = 2, as z */
  float* gdemod;  /* [n, out_channels] scratch; needed with power for gpacked, gstyle */
  void* gx;       /* as x */
  float* gpacked; /* as packed */
  float* gstyle;  /* [n, in_channels] */
  float* gbias;   /* [out_channels] */
  float* gnoise;  /* [n, up * height, up * width]: per image, also where the noise was shared */
  gf_activation activation;
  float slope, gain, clamp;
} gf_modulated_conv2d_backward;

/* What follows a convolution of another library, float32 on the CPU: y = clamp(act(demod * z + noise + bias) * gain) *
   next_style. `y` may be `z`. */
typedef struct {
  int64_t n, channels, pixels; /* of z, as NHWC: [n, pixels, channels] */
  const float* z;
  const float* demod;      /* [n, channels], NULL: 1 */
  const float* noise;      /* [n or 1, pixels], may be NULL */
  int64_t noise_stride;    /* from image to image; 0: all share one */
  const float* bias;       /* [channels], may be NULL */
  const float* next_style; /* [n, channels], may be NULL */
  float* y;
  gf_activation activation;
  float slope, gain, clamp; /* clamp negative: none */
} gf_modulated_conv2d_finish;

/* Its gradients from y; an output that is NULL is not computed. Sums have a fixed order: equal on any number of threads. */
typedef struct {
  int64_t n, channels, pixels;
  const float* gy;
  const float* y; /* without next_style */
  const float* demod;
  const float* noise;
  int64_t noise_stride;
  const float* bias;
  float* g;      /* gradient of z */
  float* gdemod; /* [n, channels]; needs demod */
  float* gbias;  /* [channels] */
  float* gnoise; /* [n, pixels] */
  gf_activation activation;
  float slope, gain, clamp;
} gf_modulated_conv2d_finish_backward;

/* The gradient t of s * x, as NHWC: gx = s * t, gstyle = sum over pixels of t * x. `gx` may be `t`. */
typedef struct {
  int64_t n, channels, pixels;
  const float* t;
  const float* x;     /* needed with gstyle */
  const float* style; /* [n, channels], NULL: 1 */
  float* gx;          /* may be NULL */
  float* gstyle;      /* [n, channels], may be NULL */
} gf_modulated_conv2d_scale_backward;

/* The layer with up = 1, kernel = 3 by Winograd's F(4x4, 3x3), float32 on the CPU; elements lie as NHWC. Equal on any
   number of threads. A value that is no number spreads over its tile of 4x4 outputs.

   `scratch` holds 36 * (max(tiles, 14) + 1) * step(in_channels) floats, or with keep_weight
   36 * (in_channels + 2) * step(out_channels); tiles = n * ceil(height / 4) * ceil(width / 4), step(c) is c rounded up to
   16, plus 16. Without keep_weight a task makes what it needs of the transformed weight: better for few tiles. */
typedef struct {
  int64_t n, in_channels, out_channels, height, width; /* of x */
  int32_t adjoint;     /* 1: weight is [in_channels, out_channels, 3, 3], turned by 180 degrees: the gradient of an input */
  int32_t weight_nhwc; /* weight lies as NHWC: [its first, 3, 3, its second] */
  int32_t keep_weight;
  const float* x;
  const float* weight; /* [out_channels, in_channels, 3, 3] */
  const float* style;  /* [n, in_channels], NULL: 1 */
  const float* demod;  /* [n, out_channels], NULL: 1 */
  const float* noise;  /* [n or 1, height, width], may be NULL */
  int64_t noise_stride;    /* from image to image; 0: all share one */
  const float* bias;       /* [out_channels], may be NULL */
  const float* next_style; /* [n, out_channels], may be NULL */
  float* scratch;
  float* y;
  gf_activation activation;
  float slope, gain, clamp; /* clamp negative: none */
} gf_modulated_conv2d_winograd;

GF_API gf_status gf_modulated_conv2d_winograd_cpu(const gf_modulated_conv2d_winograd* arguments);
GF_API gf_status gf_modulated_conv2d_finish_cpu(const gf_modulated_conv2d_finish* arguments);
GF_API gf_status gf_modulated_conv2d_finish_backward_cpu(const gf_modulated_conv2d_finish_backward* arguments);
GF_API gf_status gf_modulated_conv2d_scale_backward_cpu(const gf_modulated_conv2d_scale_backward* arguments);
GF_API gf_status gf_modulated_conv2d_weight_cpu(const gf_modulated_conv2d_weight* arguments);
GF_API gf_status gf_modulated_conv2d_cpu(const gf_modulated_conv2d* arguments); /* float32 only */
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_modulated_conv2d_weight_cuda(const gf_modulated_conv2d_weight* arguments, void* stream);
GF_API gf_status gf_modulated_conv2d_cuda(const gf_modulated_conv2d* arguments, void* stream);
/* Sums over pixels end in atomic additions: equal up to the order of fp32 sums from run to run. */
GF_API gf_status gf_modulated_conv2d_backward_cuda(const gf_modulated_conv2d_backward* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
