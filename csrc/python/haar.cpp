// guide_fast._native.haar on NumPy arrays; guide_fast._native.cuda.haar on device pointers.
#include "guide_fast/haar.h"

#include "arrays.h"

namespace {

using namespace gf::python;

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "haar",
      [](const Array& x, const OptionalArray& style) {
        want_rank(x, 4, "x");
        const int64_t n = x.shape(0), bands = x.shape(1), h = x.shape(2), w = x.shape(3);
        if (bands % 4)
          throw py::value_error("x has " + std::to_string(bands) + " channels; four bands make one output channel");
        if (style && (style->ndim() != 2 || style->shape(0) != n || style->shape(1) != bands))
          throw py::value_error("style is not [" + std::to_string(n) + ", " + std::to_string(bands) + "]");
        Array y({n, bands / 4, 2 * h, 2 * w});
        const gf_haar a{GF_FLOAT32, 0, n, bands / 4, h, w, data(x), data(style), y.mutable_data()};
        check(without_gil([&] { return gf_haar_cpu(&a); }));
        return y;
      },
      py::arg("x"), py::arg("style") = py::none(),
      "Inverse Haar wavelet of x * style: x [N, 4C, H, W] float32 -> [N, C, 2H, 2W].");
  cuda.def(
      "haar",
      [](uintptr_t x, uintptr_t style, uintptr_t y, int64_t n, int64_t channels, int64_t h, int64_t w, bool nhwc,
         const std::string& dtype, uintptr_t stream) {
        const gf_haar a{dtype_of(dtype), nhwc, n, channels, h, w, pointer<void>(x), pointer<void>(style),
                        pointer<void>(y)};
        check(gf_haar_cuda(&a, pointer<void>(stream)));
      },
      py::arg("x"), py::arg("style"), py::arg("y"), py::kw_only(), py::arg("n"), py::arg("channels"), py::arg("h"),
      py::arg("w"), py::arg("nhwc") = true, py::arg("dtype") = "float16", py::arg("stream") = 0,
      "The same on device addresses, x [n, 4 channels, h, w]; style 0 is none.");
}

const Registration registered(add);

}  // namespace
