// torch.ops.guide_fast.native_triplane_render*: outputs are allocated by the caller.
#include "guide_fast/triplane_render.h"

#include <vector>

#include "operands.h"

namespace {

using namespace gf::torch_binding;

const float* floats(const Tensor& t) { return static_cast<const float*>(data(t)); }
const float* floats(const OptionalTensor& t) { return static_cast<const float*>(data(t)); }

void check_scene(const Operands& operands, const Tensor& planes, const std::vector<int64_t>& strides,
                 const Tensor& origins, const Tensor& directions, const Tensor& w1, const Tensor& b1,
                 const Tensor& w2, const Tensor& b2) {
  const ScalarType type = operands.type();
  operands.rank("planes", planes, 5);
  operands.rank("origins", origins, 3);
  operands.want(planes.size(1) == 3 && planes.size(4) == GF_TRIPLANE_CHANNELS, "planes has shape ",
                list_of(planes.sizes()), "; it takes [N, 3, H, W, ", int(GF_TRIPLANE_CHANNELS), "]");
  operands.want(list_of(strides) == list_of(planes.strides()) && strides[4] == 1, "strides is ", list_of(strides),
                ", planes has ", list_of(planes.strides()), "; give those of planes, the last one 1");
  operands.tensor("origins", origins, {planes.size(0), origins.size(1), 3}, ScalarType::Float);
  operands.tensor("directions", directions, {planes.size(0), origins.size(1), 3}, ScalarType::Float);
  operands.tensor("w1", w1, {GF_TRIPLANE_HIDDEN, GF_TRIPLANE_CHANNELS}, type);
  operands.tensor("b1", b1, {GF_TRIPLANE_HIDDEN}, type);
  operands.tensor("w2", w2, {1 + GF_TRIPLANE_COLOURS, GF_TRIPLANE_HIDDEN}, type);
  operands.tensor("b2", b2, {1 + GF_TRIPLANE_COLOURS}, type);
}

gf_triplane_scene scene_of(gf_dtype dtype, const Tensor& planes, const std::vector<int64_t>& strides, const Tensor& origins,
                           const Tensor& directions, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                           const Tensor& b2, double box_warp, bool white_back) {
  return {dtype, origins.size(0), origins.size(1), planes.size(2), planes.size(3),
          strides[0],       strides[1],      strides[2],      strides[3],     float(box_warp),
          white_back,       data(planes),    floats(origins), floats(directions),
          data(w1),         data(b1),        data(w2),        data(b2)};
}

void forward(Tensor planes, std::vector<int64_t> strides, Tensor origins, Tensor directions, Tensor near, Tensor far,
             Tensor w1, Tensor b1, Tensor w2, Tensor b2, OptionalTensor jitter, OptionalTensor u, Tensor features,
             Tensor depth, Tensor total, Tensor depths, int64_t coarse, int64_t fine, double box_warp,
             bool white_back) {
  const Operands operands("native_triplane_render", "planes", planes);
  check_scene(operands, planes, strides, origins, directions, w1, b1, w2, b2);
  operands.want(coarse >= 0 && fine >= 0 && coarse <= GF_TRIPLANE_MOST_SAMPLES && fine <= GF_TRIPLANE_MOST_SAMPLES,
                "coarse is ", coarse, ", fine ", fine, "; a ray has up to ", int(GF_TRIPLANE_MOST_SAMPLES));
  const int64_t n = origins.size(0), rays = origins.size(1);
  operands.tensor("near", near, {n, rays}, ScalarType::Float);
  operands.tensor("far", far, {n, rays}, ScalarType::Float);
  operands.tensor("jitter", jitter, {n, rays, coarse}, ScalarType::Float);
  operands.tensor("u", u, {n, rays, fine}, ScalarType::Float);
  operands.tensor("features", features, {n, rays, GF_TRIPLANE_COLOURS}, operands.type());
  operands.tensor("depth", depth, {n, rays}, ScalarType::Float);
  operands.tensor("total", total, {n, rays}, ScalarType::Float);
  operands.tensor("depths", depths, {n, rays, coarse + fine}, ScalarType::Float);
  const gf_triplane_render a{
      scene_of(operands.dtype(), planes, strides, origins, directions, w1, b1, w2, b2, box_warp, white_back),
      int32_t(coarse), int32_t(fine), floats(near), floats(far), floats(jitter), floats(u), data(features),
      static_cast<float*>(data(depth)), static_cast<float*>(data(total)), static_cast<float*>(data(depths))};
  launch(planes, a, gf_triplane_render_cpu, gf_triplane_render_cuda);
}

void backward(Tensor gfeatures, Tensor gdepth, Tensor gtotal, Tensor planes, std::vector<int64_t> strides,
              Tensor origins, Tensor directions, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor depths,
              OptionalTensor gplanes, OptionalTensor fixed, OptionalTensor largest, OptionalTensor scale,
              OptionalTensor partials, int64_t rows, double box_warp, bool white_back) {
  const Operands operands("native_triplane_render_backward", "planes", planes);
  check_scene(operands, planes, strides, origins, directions, w1, b1, w2, b2);
  operands.rank("depths", depths, 3);
  const int64_t n = origins.size(0), rays = origins.size(1), h = planes.size(2), w = planes.size(3);
  operands.want(depths.size(2) <= GF_TRIPLANE_MOST_SAMPLES, "depths has ", depths.size(2),
                " samples of a ray; it takes up to ", int(GF_TRIPLANE_MOST_SAMPLES));
  operands.tensor("gfeatures", gfeatures, {n, rays, GF_TRIPLANE_COLOURS}, operands.type());
  operands.tensor("gdepth", gdepth, {n, rays}, ScalarType::Float);
  operands.tensor("gtotal", gtotal, {n, rays}, ScalarType::Float);
  operands.tensor("depths", depths, {n, rays, depths.size(2)}, ScalarType::Float);
  operands.tensor("gplanes", gplanes, {n, 3, h, w, GF_TRIPLANE_CHANNELS}, ScalarType::Float);
  operands.tensor("fixed", fixed, {n, 3, h, w, GF_TRIPLANE_CHANNELS}, ScalarType::Long);
  operands.tensor("largest", largest, {rows}, ScalarType::Float);
  operands.tensor("scale", scale, {1}, ScalarType::Float);
  operands.tensor("partials", partials, {rows, GF_TRIPLANE_WEIGHTS}, ScalarType::Float);
  const gf_triplane_render_backward a{
      scene_of(operands.dtype(), planes, strides, origins, directions, w1, b1, w2, b2, box_warp, white_back),
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
