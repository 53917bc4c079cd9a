// separable_conv2d without nvcc.
#include "guide_fast/separable_conv2d.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_separable_conv2d_cuda, gf_separable_conv2d)
GF_WITHOUT_CUDA(gf_separable_conv2d_backward_cuda, gf_separable_conv2d_backward)
