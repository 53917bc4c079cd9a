// guide_fast._native.separable_conv2d on NumPy arrays; guide_fast._native.cuda.separable_conv2d on device pointers.
#include "guide_fast/separable_conv2d.h"

#include "arrays.h"

namespace {

using namespace gf::python;

void want_shape(const OptionalArray& array, const std::vector<int64_t>& shape, const char* name) {
  if (!array) return;
  bool fits = size_t(array->ndim()) == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = array->shape(i) == shape[i];
  if (fits) return;
  std::string wanted;
  for (const int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  throw py::value_error(std::string(name) + " does not have the shape [" + wanted + "]");
}

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "separable_conv2d",
      [](const Array& x, const OptionalArray& depthwise, const Array& pointwise, const Array& style,
         const OptionalArray& haar_style, const OptionalArray& noise, const OptionalArray& bias,
         const OptionalArray& next_style, const std::string& activation, float slope, float gain, float clamp) {
        want_rank(x, 4, "x");
        want_rank(pointwise, 4, "pointwise");
        const int64_t up = haar_style ? 2 : 1;
        const int64_t n = x.shape(0), h = up * x.shape(2), w = up * x.shape(3);
        const int64_t inputs = pointwise.shape(1), outputs = pointwise.shape(0);
        want_shape(x, {n, up * up * inputs, x.shape(2), x.shape(3)}, "x");
        want_shape(pointwise, {outputs, inputs, 1, 1}, "pointwise");
        want_shape(depthwise, {inputs, 1, 3, 3}, "depthwise");
        want_shape(style, {n, inputs}, "style");
        want_shape(haar_style, {n, 4 * inputs}, "haar_style");
        const int64_t maps = noise && noise->ndim() == 4 && noise->shape(0) == n ? n : 1;
        want_shape(noise, {maps, 1, h, w}, "noise");
        want_shape(bias, {outputs}, "bias");
        want_shape(next_style, {n, outputs}, "next_style");
        Array y({n, outputs, h, w});
        const gf_separable_conv2d a{GF_FLOAT32, 0, n, inputs, outputs, h, w, data(x), data(haar_style),
                                    data(depthwise), data(pointwise), data(style), data(noise), maps, data(bias),
                                    data(next_style), y.mutable_data(), activation_of(activation), slope, gain, clamp};
        check(without_gil([&] { return gf_separable_conv2d_cpu(&a); }));
        return y;
      },
      py::arg("x"), py::arg("depthwise"), py::arg("pointwise"), py::arg("style"), py::kw_only(),
      py::arg("haar_style") = py::none(), py::arg("noise") = py::none(), py::arg("bias") = py::none(),
      py::arg("next_style") = py::none(), py::arg("activation") = "lrelu", py::arg("slope") = 0.2f,
      py::arg("gain") = 1.f, py::arg("clamp") = -1.f,
      "clamp(act(pointwise(depthwise(style * u)) + noise + bias) * gain) * next_style, u = x or its wavelet; float32, "
      "[N, I, H, W] -> [N, O, H, W]. A negative clamp is none.");
  cuda.def(
      "separable_conv2d",
      [](uintptr_t x, uintptr_t haar_style, uintptr_t depthwise, uintptr_t pointwise, uintptr_t style, uintptr_t noise,
         uintptr_t bias, uintptr_t next_style, uintptr_t y, int64_t n, int64_t inputs, int64_t outputs, int64_t h,
         int64_t w, int64_t noise_n, bool nhwc, const std::string& dtype, const std::string& activation, float slope,
         float gain, float clamp, uintptr_t stream) {
        const gf_separable_conv2d a{dtype_of(dtype), nhwc, n, inputs, outputs, h, w, pointer<void>(x),
                                    pointer<void>(haar_style), pointer<void>(depthwise), pointer<void>(pointwise),
                                    pointer<void>(style), pointer<void>(noise), noise_n, pointer<void>(bias),
                                    pointer<void>(next_style), pointer<void>(y), activation_of(activation), slope,
                                    gain, clamp};
        check(gf_separable_conv2d_cuda(&a, pointer<void>(stream)));
      },
      py::arg("x"), py::arg("haar_style"), py::arg("depthwise"), py::arg("pointwise"), py::arg("style"),
      py::arg("noise"), py::arg("bias"), py::arg("next_style"), py::arg("y"), py::kw_only(), py::arg("n"),
      py::arg("inputs"), py::arg("outputs"), py::arg("h"), py::arg("w"), py::arg("noise_n") = 1,
      py::arg("nhwc") = true, py::arg("dtype") = "float16", py::arg("activation") = "lrelu", py::arg("slope") = 0.2f,
      py::arg("gain") = 1.f, py::arg("clamp") = -1.f, py::arg("stream") = 0,
      "The same on device addresses, y [n, outputs, h, w]; an address of 0 is none.");
}

const Registration registered(add);

}  // namespace
