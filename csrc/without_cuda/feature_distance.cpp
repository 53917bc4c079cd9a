// feature_distance without nvcc.
#include "guide_fast/feature_distance.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_feature_distance_cuda, gf_feature_distance)
GF_WITHOUT_CUDA(gf_feature_distance_backward_cuda, gf_feature_distance)
