/* Features along rays through three planes; kernels/triplane_render/README.md has the formulas. */
#ifndef GUIDE_FAST_TRIPLANE_RENDER_H
#define GUIDE_FAST_TRIPLANE_RENDER_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes of the decoder, and how many samples a ray may have. */
enum { GF_TRIPLANE_CHANNELS = 32, GF_TRIPLANE_HIDDEN = 64, GF_TRIPLANE_COLOURS = 32, GF_TRIPLANE_MOST_SAMPLES = 256 };
/* Weights of the decoder, flat: w1 [64, 32], b1 [64], w2 [33, 64], b2 [33]. */
enum { GF_TRIPLANE_WEIGHTS = 64 * 32 + 64 + 33 * 64 + 33 };

typedef struct {
  gf_dtype dtype;      /* of planes, decoder, features, their gradients; the CPU takes float32 */
  int64_t batch, rays; /* rays of one image */
  int64_t height, width;
  int64_t stride_batch, stride_plane, stride_y, stride_x; /* of planes, in elements; a texel's channels lie together */
  float box_warp;
  int32_t white_back;
  const void* planes;
  const float* origins;    /* [batch, rays, 3] */
  const float* directions; /* [batch, rays, 3] */
  const void* w1;          /* [64, 32] */
  const void* b1;          /* [64] */
  const void* w2;          /* [33, 64]: row 0 is density */
  const void* b2;          /* [33] */
} gf_triplane_scene;

typedef struct {
  gf_triplane_scene scene;
  int32_t coarse, fine;
  const float* near_end; /* [batch, rays] */
  const float* far_end;  /* [batch, rays] */
  const float* jitter;   /* [batch, rays, coarse], may be NULL: 0.5 */
  const float* u;        /* [batch, rays, fine], may be NULL: evenly spaced */
  void* features;        /* [batch, rays, 32] */
  float* depth;          /* [batch, rays]; infinite where total is zero */
  float* total;          /* [batch, rays], sum of weights */
  float* depths;         /* [batch, rays, coarse + fine], sorted: what the backward pass takes */
} gf_triplane_render;

/* On a GPU the planes' gradient is added up in `gplanes` or, for sums that do not depend on their order, in `fixed`
   as integers of `*scale`; a launch with `largest` alone measures the largest term. Decoder gradients come as `rows`
   rows to be added up; `partials` NULL skips them. */
typedef struct {
  gf_triplane_scene scene;
  int32_t samples;
  const void* gfeatures;
  const float* gdepth;
  const float* gtotal;
  const float* depths;
  float* gplanes;     /* [batch, 3, height, width, 32], zeroed by the caller; may be NULL */
  int64_t* fixed;     /* the same shape; CUDA only */
  float* largest;     /* [rows], one of every block; CUDA only */
  const float* scale; /* [1] */
  float* partials;    /* [rows, GF_TRIPLANE_WEIGHTS] */
  int64_t rows;       /* CPU: one for every 32 rays; CUDA: the number of blocks */
} gf_triplane_render_backward;

GF_API gf_status gf_triplane_render_cpu(const gf_triplane_render* arguments);
GF_API gf_status gf_triplane_render_backward_cpu(const gf_triplane_render_backward* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_triplane_render_cuda(const gf_triplane_render* arguments, void* stream);
GF_API gf_status gf_triplane_render_backward_cuda(const gf_triplane_render_backward* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
