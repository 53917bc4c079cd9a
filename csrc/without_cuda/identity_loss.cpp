// identity_loss without nvcc.
#include "guide_fast/identity_loss.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_identity_loss_cuda, gf_identity_loss)
