// torch.ops.guide_fast.native_triplane_render*: outputs are allocated by the caller.
#include "guide_fast/triplane_render.h"

#include <vector>

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

const float* floats(const Tensor& t) { return static_cast<const float*>(data(t)); }
const float* floats(const OptionalTensor& t) { return static_cast<const float*>(data(t)); }

gf_triplane_scene scene_of(const Tensor& planes, const std::vector<int64_t>& strides, const Tensor& origins,
                           const Tensor& directions, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                           const Tensor& b2, double box_warp, bool white_back) {
  STD_TORCH_CHECK(strides.size() == 5 && strides[4] == 1, "planes take the strides of [N, 3, H, W, C], the last one 1");
  return {dtype_of(planes), origins.size(0), origins.size(1), planes.size(2), planes.size(3),
          strides[0],       strides[1],      strides[2],      strides[3],     float(box_warp),
          white_back,       data(planes),    floats(origins), floats(directions),
          data(w1),         data(b1),        data(w2),        data(b2)};
}

void forward(Tensor planes, std::vector<int64_t> strides, Tensor origins, Tensor directions, Tensor near, Tensor far,
             Tensor w1, Tensor b1, Tensor w2, Tensor b2, OptionalTensor jitter, OptionalTensor u, Tensor features,
             Tensor depth, Tensor total, Tensor depths, int64_t coarse, int64_t fine, double box_warp,
             bool white_back) {
  const gf_triplane_render a{
      scene_of(planes, strides, origins, directions, w1, b1, w2, b2, box_warp, white_back),
      int32_t(coarse), int32_t(fine), floats(near), floats(far), floats(jitter), floats(u), data(features),
      static_cast<float*>(data(depth)), static_cast<float*>(data(total)), static_cast<float*>(data(depths))};
  launch(planes, a, gf_triplane_render_cpu, gf_triplane_render_cuda);
}

void backward(Tensor gfeatures, Tensor gdepth, Tensor gtotal, Tensor planes, std::vector<int64_t> strides,
              Tensor origins, Tensor directions, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor depths,
              OptionalTensor gplanes, OptionalTensor fixed, OptionalTensor largest, OptionalTensor scale,
              OptionalTensor partials, int64_t rows, double box_warp, bool white_back) {
  const gf_triplane_render_backward a{
      scene_of(planes, strides, origins, directions, w1, b1, w2, b2, box_warp, white_back),
      int32_t(depths.size(2)),
      data(gfeatures),
      floats(gdepth),
      floats(gtotal),
      floats(depths),
      static_cast<float*>(data(gplanes)),
      static_cast<int64_t*>(data(fixed)),
      static_cast<float*>(data(largest)),
      floats(scale),
      static_cast<float*>(data(partials)),
      rows};
  launch(planes, a, gf_triplane_render_backward_cpu, gf_triplane_render_backward_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_triplane_render(Tensor planes, int[] strides, Tensor origins, Tensor directions, Tensor near, "
        "Tensor far, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? jitter, Tensor? u, Tensor(a!) features, "
        "Tensor(b!) depth, Tensor(c!) total, Tensor(d!) depths, int coarse, int fine, float box_warp, "
        "bool white_back) -> ()");
  m.def("native_triplane_render_backward(Tensor gfeatures, Tensor gdepth, Tensor gtotal, Tensor planes, "
        "int[] strides, Tensor origins, Tensor directions, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor depths, "
        "Tensor(a!)? gplanes, Tensor(b!)? fixed, Tensor(c!)? largest, Tensor? scale, Tensor(d!)? partials, int rows, "
        "float box_warp, bool white_back) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_triplane_render", TORCH_BOX(&forward));
  m.impl("native_triplane_render_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_triplane_render", TORCH_BOX(&forward));
  m.impl("native_triplane_render_backward", TORCH_BOX(&backward));
}
