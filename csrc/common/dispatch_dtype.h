// Runs a statement with T bound to the element type of a gf_dtype.
#pragma once

#include "element.h"
#include "guide_fast/status.h"

#define GF_DISPATCH_DTYPE(dtype, T, ...)                                                       \
  switch (dtype) {                                                                             \
    case GF_FLOAT32: {                                                                         \
      using T = float;                                                                         \
      __VA_ARGS__;                                                                             \
      break;                                                                                   \
    }                                                                                          \
    case GF_FLOAT16: {                                                                         \
      using T = gf::half_bits;                                                                 \
      __VA_ARGS__;                                                                             \
      break;                                                                                   \
    }                                                                                          \
    case GF_BFLOAT16: {                                                                        \
      using T = gf::bfloat16_bits;                                                             \
      __VA_ARGS__;                                                                             \
      break;                                                                                   \
    }                                                                                          \
    default:                                                                                   \
      return gf_fail(GF_INVALID, "dtype %d is not known here; use float32, float16 or bfloat16", int(dtype)); \
  }
