// haar without nvcc.
#include "guide_fast/haar.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_haar_cuda, gf_haar)
GF_WITHOUT_CUDA(gf_haar_backward_cuda, gf_haar_backward)
