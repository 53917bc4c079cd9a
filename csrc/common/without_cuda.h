// The CUDA launcher of a library built without nvcc: it says so.
#pragma once

#include "guide_fast/status.h"

#define GF_WITHOUT_CUDA(name, arguments)                                                                \
  extern "C" GF_API gf_status name(const arguments*, void*) {                                           \
    return gf_fail(GF_UNSUPPORTED, #name " is not in this build: nvcc was not there; rebuild with it"); \
  }
