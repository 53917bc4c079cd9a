/* Separable resampling of three-channel images with channel order, scale, offset; kernels/face_crop/README.md. */
#ifndef GUIDE_FAST_FACE_CROP_H
#define GUIDE_FAST_FACE_CROP_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A banded matrix by rows: row i has `taps` weights from column start[i] on; start + taps stays inside the input. Rows
   with a weight have starts that never go down. */
typedef struct {
  int64_t in, out;
  int64_t taps;
  const int32_t* start; /* [out] */
  const float* weight;  /* [taps, out] */
} gf_axis;

/* y[n, c] = (rows x[n, source[c]] columns^T) * scale[c] + offset[c]; the gradient is the same with transposed axes. */
typedef struct {
  gf_dtype dtype;
  int64_t batch;
  const void* x; /* [batch, 3, rows.in, columns.in], with `nhwc` [batch, rows.in, columns.in, 3] */
  void* y;       /* [batch, 3, rows.out, columns.out] */
  gf_axis rows, columns;
  int nhwc;
  int32_t source[3];
  float scale[3];
  float offset[3];
} gf_face_crop;

GF_API gf_status gf_face_crop_cpu(const gf_face_crop* arguments);
/* `stream` is a cudaStream_t; pointers, those of the axes too, are device pointers. GF_UNSUPPORTED without CUDA. */
GF_API gf_status gf_face_crop_cuda(const gf_face_crop* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
