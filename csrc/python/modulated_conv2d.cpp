// guide_fast._native.modulated_conv2d on NumPy arrays; guide_fast._native.cuda.modulated_conv2d on device pointers.
#include "guide_fast/modulated_conv2d.h"

#include "arrays.h"

namespace {

using namespace gf::python;

std::string shape_of(const Array& a) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
  return text + ")";
}

void want_shape(const Array& a, const std::vector<int64_t>& shape, const char* name) {
  bool same = a.ndim() == py::ssize_t(shape.size());
  for (size_t i = 0; same && i < shape.size(); ++i) same = a.shape(py::ssize_t(i)) == shape[i];
  std::string wanted;
  for (const int64_t size : shape) wanted += (wanted.empty() ? "(" : ", ") + std::to_string(size);
  if (!same) throw py::value_error(std::string(name) + " has shape " + shape_of(a) + "; it takes " + wanted + ")");
}

Array forward(const Array& x, const Array& weight, const Array& style, const OptionalArray& noise,
              const OptionalArray& bias, const OptionalArray& next_style, int up, bool demodulate, bool premodulated,
              const std::string& activation, float slope, float gain, float clamp) {
  want_rank(x, 4, "x");
  want_rank(weight, 4, "weight");
  const int64_t n = x.shape(0), h = x.shape(1), w = x.shape(2), in = x.shape(3), out = weight.shape(0);
  const int64_t k = weight.shape(2);
  if (k != 1 && k != 3)
    throw py::value_error("weight has shape " + shape_of(weight) + "; its kernel is 1 x 1 or 3 x 3");
  if (up != 1 && up != 2) throw py::value_error("up=" + std::to_string(up) + " is not known; choose 1 or 2");
  want_shape(weight, {out, in, k, k}, "weight");
  want_shape(style, {n, in}, "style");
  if (noise) {
    want_rank(*noise, 3, "noise");
    want_shape(*noise, {noise->shape(0) == 1 ? 1 : n, up * h, up * w}, "noise");
  }
  if (bias) want_shape(*bias, {out}, "bias");
  if (next_style) want_shape(*next_style, {n, out}, "next_style");

  std::vector<float> packed(size_t(k * k * in * out)), power(size_t(demodulate ? out * in : 0));
  std::vector<float> demod(size_t(n * out)), z(size_t(up == 2 ? n * (2 * h + k - 2) * (2 * w + k - 2) * out : 0));
  Array y({n, up * h, up * w, out});
  const gf_modulated_conv2d_weight prepare{
      GF_FLOAT32, out, in, int32_t(k), data(weight), packed.data(), demodulate ? power.data() : nullptr};
  const gf_modulated_conv2d a{GF_FLOAT32, n, in, out, h, w, int32_t(k), up, premodulated, data(x), packed.data(),
                              prepare.power, data(style), data(noise),
                              noise && noise->shape(0) > 1 ? h * w * up * up : 0, data(bias), data(next_style), demod.data(), z.data(), y.mutable_data(),
                              activation_of(activation), slope, gain, clamp};
  check(without_gil([&] {
    const gf_status status = gf_modulated_conv2d_weight_cpu(&prepare);
    return status == GF_OK ? gf_modulated_conv2d_cpu(&a) : status;
  }));
  return y;
}

void add(py::module_& module, py::module_& cuda) {
  module.def("modulated_conv2d", &forward, py::arg("x"), py::arg("weight"), py::arg("style"), py::kw_only(),
             py::arg("noise") = py::none(), py::arg("bias") = py::none(), py::arg("next_style") = py::none(),
             py::arg("up") = 1, py::arg("demodulate") = true, py::arg("premodulated") = false,
             py::arg("activation") = "lrelu", py::arg("slope") = 0.2f, py::arg("gain") = 1.f, py::arg("clamp") = -1.f,
             "x [N, H, W, I] float32, weight [O, I, k, k], style [N, I], noise [N or 1, H', W'] -> [N, H', W', O].");
  cuda.def(
      "modulated_conv2d_weight",
      [](uintptr_t weight, uintptr_t packed, uintptr_t power, int64_t out_channels, int64_t in_channels, int kernel,
         const std::string& dtype, uintptr_t stream) {
        const gf_modulated_conv2d_weight a{dtype_of(dtype), out_channels, in_channels, kernel, pointer<void>(weight),
                                           pointer<void>(packed), pointer<float>(power)};
        check(gf_modulated_conv2d_weight_cuda(&a, pointer<void>(stream)));
      },
      py::arg("weight"), py::arg("packed"), py::arg("power"), py::kw_only(), py::arg("out_channels"),
      py::arg("in_channels"), py::arg("kernel"), py::arg("dtype") = "float16", py::arg("stream") = 0,
      "Lays [O, I, k, k] out as [k * k, I, O], sums its squares into power [O, I] float32; power 0 is none.");
  cuda.def(
      "modulated_conv2d",
      [](uintptr_t x, uintptr_t packed, uintptr_t power, uintptr_t style, uintptr_t demod, uintptr_t z, uintptr_t y,
         int64_t n, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width, int kernel, int up,
         bool premodulated, uintptr_t noise, int64_t noise_stride, uintptr_t bias, uintptr_t next_style,
         const std::string& dtype, const std::string& activation, float slope, float gain, float clamp,
         uintptr_t stream) {
        const gf_modulated_conv2d a{dtype_of(dtype), n, in_channels, out_channels, height, width, kernel, up,
                                    premodulated, pointer<void>(x), pointer<void>(packed), pointer<float>(power),
                                    pointer<void>(style), pointer<void>(noise), noise_stride, pointer<void>(bias),
                                    pointer<void>(next_style), pointer<float>(demod), pointer<void>(z),
                                    pointer<void>(y), activation_of(activation), slope, gain, clamp};
        check(gf_modulated_conv2d_cuda(&a, pointer<void>(stream)));
      },
      py::arg("x"), py::arg("packed"), py::arg("power"), py::arg("style"), py::arg("demod"), py::arg("z"), py::arg("y"),
      py::kw_only(), py::arg("n"), py::arg("in_channels"), py::arg("out_channels"), py::arg("height"),
      py::arg("width"), py::arg("kernel"), py::arg("up") = 1, py::arg("premodulated") = false, py::arg("noise") = 0,
      py::arg("noise_stride") = 0, py::arg("bias") = 0, py::arg("next_style") = 0, py::arg("dtype") = "float16",
      py::arg("activation") = "lrelu", py::arg("slope") = 0.2f, py::arg("gain") = 1.f, py::arg("clamp") = -1.f,
      py::arg("stream") = 0, "A layer in NHWC on device addresses; 0 is none. z: scratch of up = 2.");
}

const Registration registered(add);

}  // namespace
