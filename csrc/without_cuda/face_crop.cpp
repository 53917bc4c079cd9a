// face_crop without nvcc.
#include "guide_fast/face_crop.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_face_crop_cuda, gf_face_crop)
