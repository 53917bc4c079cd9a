// triplane_render without nvcc.
#include "guide_fast/triplane_render.h"
#include "without_cuda.h"

GF_WITHOUT_CUDA(gf_triplane_render_cuda, gf_triplane_render)
GF_WITHOUT_CUDA(gf_triplane_render_backward_cuda, gf_triplane_render_backward)
