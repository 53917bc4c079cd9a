// bias_act without nvcc.
#include "guide_fast/bias_act.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_bias_act_cuda, gf_bias_act)
GF_WITHOUT_CUDA(gf_bias_act_backward_cuda, gf_bias_act_backward)
