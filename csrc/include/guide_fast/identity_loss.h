/* Distance of pairs of embeddings with its gradient; kernels/identity_loss/README.md has the formula. */
#ifndef GUIDE_FAST_IDENTITY_LOSS_H
#define GUIDE_FAST_IDENTITY_LOSS_H

#include "guide_fast/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 1 - cos, |u - v|, |u - v|^2 */
typedef enum { GF_COSINE = 0, GF_L2 = 1, GF_SQUARED_L2 = 2 } gf_identity_kind;

/* Rows of a and b are contiguous; loss and gradients are float32 whatever the dtype of the embeddings. */
typedef struct {
  gf_dtype dtype;
  int64_t rows, width;
  const void* a; /* [rows, width] */
  const void* b; /* [rows, width] */
  float* loss;   /* [rows], or [1] with `reduce` */
  float* da;     /* [rows, width], d loss / d a; may be NULL */
  float* db;     /* the same of b */
  gf_identity_kind kind;
  int normalise; /* 0: embeddings as they are; GF_COSINE always normalises */
  int reduce;    /* 1: loss is the sum over rows */
  float scale;   /* factor of loss and gradients; 1 / rows makes the sum a mean */
  float eps;     /* least length */
} gf_identity_loss;

GF_API gf_status gf_identity_loss_cpu(const gf_identity_loss* arguments);
/* `stream` is a cudaStream_t; pointers are device pointers. GF_UNSUPPORTED without CUDA kernels. */
GF_API gf_status gf_identity_loss_cuda(const gf_identity_loss* arguments, void* stream);

#ifdef __cplusplus
}
#endif
#endif
