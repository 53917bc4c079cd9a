/* Distance of feature maps, unit-normalised over channels; kernels/feature_distance/README.md has the formula. */
#ifndef GUIDE_FAST_FEATURE_DISTANCE_H
#define GUIDE_FAST_FEATURE_DISTANCE_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GF_FEATURE_TAPS = 16, GF_FEATURE_PIXELS = 128 };

/* One feature map of all images, [batch, channels, pixels], or [batch, pixels, channels] with `nhwc`. */
typedef struct {
  int64_t channels, pixels;
  const void* a;
  const void* b;
  const float* weight; /* [channels], may be NULL */
  void* ga;            /* backward: gradient of a, may be NULL */
  void* gb;
  float scale; /* factor of this map's distance */
  int nhwc;
  int shared; /* b has one image, compared with every image of a */
} gf_feature_tap;

typedef struct {
  gf_dtype dtype;
  int64_t batch;
  int taps; /* at most GF_FEATURE_TAPS */
  gf_feature_tap tap[GF_FEATURE_TAPS];
  int normalised; /* b has unit length over channels already */
  float eps;
  const float* gout; /* backward: [batch] */
  float* partial;    /* forward: scratch, [batch, sum over taps of gf_feature_blocks(pixels)] */
  float* out;        /* forward: [batch] */
} gf_feature_distance;

static inline int64_t gf_feature_blocks(int64_t pixels) {
  return (pixels + GF_FEATURE_PIXELS - 1) / GF_FEATURE_PIXELS;
}

GF_API gf_status gf_feature_distance_cpu(const gf_feature_distance* arguments);
GF_API gf_status gf_feature_distance_backward_cpu(const gf_feature_distance* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_feature_distance_cuda(const gf_feature_distance* arguments, void* stream);
GF_API gf_status gf_feature_distance_backward_cuda(const gf_feature_distance* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
