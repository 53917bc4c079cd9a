// fused_adam without nvcc.
#include "guide_fast/fused_adam.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_fused_adam_cuda, gf_fused_adam)
