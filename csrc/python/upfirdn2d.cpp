// guide_fast._native.upfirdn2d on NumPy arrays; guide_fast._native.cuda.upfirdn2d on device pointers.
#include "guide_fast/upfirdn2d.h"

#include <algorithm>
#include <array>

#include "arrays.h"

namespace {

using namespace gf::python;

int64_t size_of(const char* side, int64_t size, int up, int down, int before, int after, int64_t taps) {
  if (up < 1 || down < 1)
    throw py::value_error("up " + std::to_string(up) + ", down " + std::to_string(down) + ": both start at 1");
  const int64_t padded = size * up + before + after;
  if (padded < taps)
    throw py::value_error("f is " + std::to_string(taps) + " " + side + ", the padded image only " +
                          std::to_string(padded));
  return (padded - taps) / down + 1;
}

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "upfirdn2d",
      [](const Array& x, const Array& f, int up, int down, const std::array<int, 4>& padding, bool flip_filter,
         float gain) {
        want_rank(x, 4, "x");
        want_rank(f, 2, "f");
        const auto [left, right, top, bottom] = padding;
        const int64_t h = size_of("high", x.shape(2), up, down, top, bottom, f.shape(0));
        const int64_t w = size_of("wide", x.shape(3), up, down, left, right, f.shape(1));
        std::vector<float> filter(f.data(), f.data() + f.size());

        if (!flip_filter) std::reverse(filter.begin(), filter.end());
        for (float& tap : filter) tap *= gain;
        Array y({x.shape(0), x.shape(1), py::ssize_t(h), py::ssize_t(w)});
        const gf_upfirdn2d a{GF_FLOAT32, 0, x.shape(0), x.shape(1), x.shape(2), x.shape(3), h, w, data(x),
                             filter.data(), y.mutable_data(), int(f.shape(0)), int(f.shape(1)), up, up, down, down,
                             left, top};
        check(without_gil([&] { return gf_upfirdn2d_cpu(&a); }));
        return y;
      },
      py::arg("x"), py::arg("f"), py::kw_only(), py::arg("up") = 1, py::arg("down") = 1,
      py::arg("padding") = std::array<int, 4>{0, 0, 0, 0}, py::arg("flip_filter") = false, py::arg("gain") = 1.f,
      "Zero-insert by up, pad (left, right, top, bottom), filter with f [kh, kw], keep every down-th: x [N, C, H, W].");
  cuda.def(
      "upfirdn2d",
      [](uintptr_t x, uintptr_t filter, uintptr_t y, const std::array<int64_t, 4>& shape, int64_t out_h, int64_t out_w,
         int filter_h, int filter_w, std::array<int, 2> up, std::array<int, 2> down, int left, int top, bool nhwc,
         const std::string& dtype, uintptr_t stream) {
        const gf_upfirdn2d a{dtype_of(dtype), nhwc, shape[0], shape[1], shape[2], shape[3], out_h, out_w,
                             pointer<void>(x), pointer<float>(filter), pointer<void>(y), filter_h, filter_w, up[0],
                             up[1], down[0], down[1], left, top};
        check(gf_upfirdn2d_cuda(&a, pointer<void>(stream)));
      },
      py::arg("x"), py::arg("filter"), py::arg("y"), py::kw_only(), py::arg("shape"), py::arg("out_h"),
      py::arg("out_w"), py::arg("filter_h"), py::arg("filter_w"), py::arg("up") = std::array<int, 2>{1, 1},
      py::arg("down") = std::array<int, 2>{1, 1}, py::arg("left") = 0, py::arg("top") = 0, py::arg("nhwc") = false,
      py::arg("dtype") = "float16", py::arg("stream") = 0,
      "On device addresses: filter is fp32 and correlates, gain folded in; up and down are (x, y).");
}

const Registration registered(add);

}  // namespace
