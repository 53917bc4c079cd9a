// modulated_conv2d without nvcc.
#include "guide_fast/modulated_conv2d.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_modulated_conv2d_weight_cuda, gf_modulated_conv2d_weight)
GF_WITHOUT_CUDA(gf_modulated_conv2d_cuda, gf_modulated_conv2d)
GF_WITHOUT_CUDA(gf_modulated_conv2d_backward_cuda, gf_modulated_conv2d_backward)
