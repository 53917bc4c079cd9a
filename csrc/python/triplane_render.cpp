// guide_fast._native.triplane_render on NumPy arrays; guide_fast._native.cuda.triplane_render on device pointers.
#include "guide_fast/triplane_render.h"

#include "arrays.h"

namespace {

using namespace gf::python;

void want_shape(const Array& a, const std::vector<int64_t>& shape, const char* name) {
  want_rank(a, int(shape.size()), name);
  for (size_t i = 0; i < shape.size(); ++i)
    if (a.shape(i) != shape[i])
      throw py::value_error(std::string(name) + " has " + std::to_string(a.shape(i)) + " in dimension " +
                            std::to_string(i) + "; it takes " + std::to_string(shape[i]));
}

Array constant(int64_t n, int64_t rays, float value) {
  Array a({n, rays});
  std::fill(a.mutable_data(), a.mutable_data() + a.size(), value);
  return a;
}

py::tuple render(const Array& planes, const Array& origins, const Array& directions, const Array& w1, const Array& b1,
                 const Array& w2, const Array& b2, const OptionalArray& jitter, const OptionalArray& u, float box_warp,
                 float ray_start, float ray_end, int coarse, int fine, bool white_back) {
  want_rank(planes, 5, "planes");
  want_rank(origins, 3, "origins");
  const int64_t n = planes.shape(0), h = planes.shape(2), w = planes.shape(3), rays = origins.shape(1);
  want_shape(planes, {n, 3, h, w, GF_TRIPLANE_CHANNELS}, "planes");
  want_shape(origins, {n, rays, 3}, "origins");
  want_shape(directions, {n, rays, 3}, "directions");
  want_shape(w1, {GF_TRIPLANE_HIDDEN, GF_TRIPLANE_CHANNELS}, "w1");
  want_shape(b1, {GF_TRIPLANE_HIDDEN}, "b1");
  want_shape(w2, {1 + GF_TRIPLANE_COLOURS, GF_TRIPLANE_HIDDEN}, "w2");
  want_shape(b2, {1 + GF_TRIPLANE_COLOURS}, "b2");
  if (jitter) want_shape(*jitter, {n, rays, coarse}, "jitter");
  if (u) want_shape(*u, {n, rays, fine}, "u");
  if (coarse < 1 || fine < 0) throw py::value_error("coarse, fine are numbers of samples; give positive ones");
  Array features({n, rays, int64_t(GF_TRIPLANE_COLOURS)}), depth({n, rays}), total({n, rays});
  Array depths({n, rays, int64_t(coarse) + fine});
  const Array near_end = constant(n, rays, ray_start), far_end = constant(n, rays, ray_end);
  const int64_t texel = GF_TRIPLANE_CHANNELS;
  const gf_triplane_render a{
      {GF_FLOAT32, n, rays, h, w, 3 * h * w * texel, h * w * texel, w * texel, texel, box_warp, white_back,
       data(planes), data(origins), data(directions), data(w1), data(b1), data(w2), data(b2)},
      coarse, fine, data(near_end), data(far_end), data(jitter), data(u), features.mutable_data(),
      depth.mutable_data(), total.mutable_data(), depths.mutable_data()};
  check(without_gil([&] { return gf_triplane_render_cpu(&a); }));
  return py::make_tuple(features, depth, total);
}

void render_cuda(uintptr_t planes, uintptr_t origins, uintptr_t directions, uintptr_t near_end, uintptr_t far_end,
                 uintptr_t w1, uintptr_t b1, uintptr_t w2, uintptr_t b2, uintptr_t jitter, uintptr_t u,
                 uintptr_t features, uintptr_t depth, uintptr_t total, uintptr_t depths, int64_t n, int64_t rays,
                 int64_t h, int64_t w, int coarse, int fine, const std::string& dtype, float box_warp, bool white_back,
                 uintptr_t stream) {
  const int64_t texel = GF_TRIPLANE_CHANNELS;
  const gf_triplane_render a{
      {dtype_of(dtype), n, rays, h, w, 3 * h * w * texel, h * w * texel, w * texel, texel, box_warp, white_back,
       pointer<void>(planes), pointer<float>(origins), pointer<float>(directions), pointer<void>(w1),
       pointer<void>(b1), pointer<void>(w2), pointer<void>(b2)},
      coarse, fine, pointer<float>(near_end), pointer<float>(far_end), pointer<float>(jitter), pointer<float>(u),
      pointer<void>(features), pointer<float>(depth), pointer<float>(total), pointer<float>(depths)};
  check(gf_triplane_render_cuda(&a, pointer<void>(stream)));
}

void add(py::module_& module, py::module_& cuda) {
  module.def("triplane_render", &render, py::arg("planes"), py::arg("origins"), py::arg("directions"), py::arg("w1"),
             py::arg("b1"), py::arg("w2"), py::arg("b2"), py::kw_only(), py::arg("jitter") = py::none(),
             py::arg("u") = py::none(), py::arg("box_warp") = 1.f, py::arg("ray_start") = 2.25f,
             py::arg("ray_end") = 3.3f, py::arg("coarse") = 48, py::arg("fine") = 48, py::arg("white_back") = false,
             "planes [N, 3, H, W, 32], rays [N, R, 3] float32 -> features [N, R, 32], depth [N, R] (infinite where a "
             "ray meets nothing), sum of weights [N, R].");
  cuda.def("triplane_render", &render_cuda, py::arg("planes"), py::arg("origins"), py::arg("directions"),
           py::arg("near"), py::arg("far"), py::arg("w1"), py::arg("b1"), py::arg("w2"), py::arg("b2"),
           py::arg("jitter"), py::arg("u"), py::arg("features"), py::arg("depth"), py::arg("total"),
           py::arg("depths"), py::kw_only(), py::arg("n"), py::arg("rays"), py::arg("height"), py::arg("width"),
           py::arg("coarse") = 48, py::arg("fine") = 48, py::arg("dtype") = "float16", py::arg("box_warp") = 1.f,
           py::arg("white_back") = false, py::arg("stream") = 0,
           "The same on device addresses, planes contiguous; jitter, u may be 0; depths [N, R, coarse + fine] out.");
}

const Registration registered(add);

}  // namespace
