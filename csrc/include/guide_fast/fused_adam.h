/* One Adam step of many tensors; kernels/fused_adam/README.md has the formula. */
#ifndef GUIDE_FAST_FUSED_ADAM_H
#define GUIDE_FAST_FUSED_ADAM_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arrays of pointers have one entry for each tensor, on the device for the CUDA launcher. Chunk i is `chunk_size` elements
   (fewer at a tensor's end) of tensor chunk_tensor[i] from element chunk_start[i] on. */
typedef struct {
  gf_dtype gradient_dtype, copy_dtype; /* of every tensor where `kind` is NULL */
  int64_t chunks, chunk_size;
  const int32_t* chunk_tensor;
  const int64_t* chunk_start;
  const int64_t* size; /* elements of each tensor */
  float* const* parameter;
  const void* const* gradient;
  float* const* exp_avg;
  float* const* exp_avg_sq;
  void* const* copy; /* half-precision working copies, NULL for none */
  /* of every tensor where `setting` is NULL */
  float one_minus_beta1, beta2, one_minus_beta2;
  float step_size;   /* lr / (1 - beta1^step) */
  float bias2_rsqrt;  /* 1 / sqrt(1 - beta2^step) */
  float eps, weight_decay;
  /* NULL, or for each tensor: its gradient's gf_dtype plus 4 times its copy's gf_dtype plus 1, 0 instead for no copy */
  const int64_t* kind;
  /* NULL, or for each tensor the row of `factors` that holds its seven numbers, in the order of the fields above */
  const int64_t* setting;
  const float* factors; /* [settings, 7] */
} gf_fused_adam;

GF_API gf_status gf_fused_adam_cpu(const gf_fused_adam* arguments);
/* `stream` is a cudaStream_t. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_fused_adam_cuda(const gf_fused_adam* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
