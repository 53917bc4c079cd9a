// guide_fast._native.bias_act on NumPy arrays; guide_fast._native.cuda.bias_act on device pointers.
#include "guide_fast/bias_act.h"

#include "arrays.h"

namespace {

using namespace gf::python;

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "bias_act",
      [](const Array& x, const OptionalArray& bias, const std::string& activation, float slope, float gain,
         float clamp) {
        want_rank(x, 4, "x");
        const int64_t channels = x.shape(1);
        if (bias && (bias->ndim() != 1 || bias->shape(0) != channels))
          throw py::value_error("bias does not have x's " + std::to_string(channels) + " channels");
        Array y({x.shape(0), x.shape(1), x.shape(2), x.shape(3)});
        const gf_bias_act a{GF_FLOAT32, x.shape(0), channels, x.shape(2) * x.shape(3), data(x), data(bias),
                            y.mutable_data(), activation_of(activation), slope, gain, clamp};
        check(without_gil([&] { return gf_bias_act_cpu(&a); }));
        return y;
      },
      py::arg("x"), py::arg("bias") = py::none(), py::kw_only(), py::arg("activation") = "lrelu",
      py::arg("slope") = 0.2f, py::arg("gain") = 1.f, py::arg("clamp") = -1.f,
      "clamp(act(x + bias) * gain): x [N, C, H, W] float32 -> the same shape. A negative clamp is none.");
  cuda.def(
      "bias_act",
      [](uintptr_t x, uintptr_t bias, uintptr_t y, int64_t outer, int64_t channels, int64_t inner,
         const std::string& dtype, const std::string& activation, float slope, float gain, float clamp,
         uintptr_t stream) {
        const gf_bias_act a{dtype_of(dtype), outer, channels, inner, pointer<void>(x), pointer<void>(bias),
                            pointer<void>(y), activation_of(activation), slope, gain, clamp};
        check(gf_bias_act_cuda(&a, pointer<void>(stream)));
      },
      py::arg("x"), py::arg("bias"), py::arg("y"), py::kw_only(), py::arg("outer"), py::arg("channels"),
      py::arg("inner"), py::arg("dtype") = "float16", py::arg("activation") = "lrelu", py::arg("slope") = 0.2f,
      py::arg("gain") = 1.f, py::arg("clamp") = -1.f, py::arg("stream") = 0,
      "The same on device addresses, elements [outer, channels, inner]; bias 0 is none.");
}

const Registration registered(add);

}  // namespace
