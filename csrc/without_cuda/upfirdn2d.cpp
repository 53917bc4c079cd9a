// upfirdn2d without nvcc.
#include "guide_fast/upfirdn2d.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_upfirdn2d_cuda, gf_upfirdn2d)
