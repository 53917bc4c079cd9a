// torch.ops.guide_fast.native_modulated_conv2d_winograd: tensors in NHWC, output and scratch are allocated by the caller.
#include <algorithm>

#include "guide_fast/modulated_conv2d.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

const float* floats(const Tensor& t) { return static_cast<const float*>(data(t)); }
const float* floats(const OptionalTensor& t) { return static_cast<const float*>(data(t)); }

int64_t step_of(int64_t channels) { return (channels + 15) / 16 * 16 + 16; }

void forward(Tensor x, Tensor weight, bool adjoint, OptionalTensor style, OptionalTensor demod, OptionalTensor noise,
             OptionalTensor bias, OptionalTensor next_style, Tensor scratch, bool keep_weight, Tensor y,
             std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_modulated_conv2d_winograd", "x", x);
  operands.rank("x", x, 4);
  operands.rank("y", y, 4);
  const int64_t n = x.size(0), in = x.size(1), h = x.size(2), w = x.size(3), out = y.size(1);
  operands.tensor("x", x, {n, in, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("y", y, {n, out, h, w}, ScalarType::Float, Order::nhwc);
  operands.rank("weight", weight, 4);
  const bool nhwc = lies_as(weight, Order::nhwc);
  operands.tensor("weight", weight, {adjoint ? in : out, adjoint ? out : in, 3, 3}, ScalarType::Float, order_of(nhwc));
  operands.tensor("style", style, {n, in}, ScalarType::Float);
  operands.tensor("demod", demod, {n, out}, ScalarType::Float);
  if (noise.has_value()) {
    operands.rank("noise", *noise, 4);
    operands.tensor("noise", noise, {noise->size(0) == 1 ? 1 : n, 1, h, w}, ScalarType::Float);
  }
  operands.tensor("bias", bias, {out}, ScalarType::Float);
  operands.tensor("next_style", next_style, {n, out}, ScalarType::Float);
  const int64_t tiles = n * ((h + 3) / 4) * ((w + 3) / 4);
  if (keep_weight)
    operands.tensor("scratch", scratch, {1, 36, in + 2, step_of(out)}, ScalarType::Float);
  else
    operands.tensor("scratch", scratch, {1, 36, std::max<int64_t>(tiles, 14) + 1, step_of(in)}, ScalarType::Float);
  const gf_modulated_conv2d_winograd a{n,
                                       in,
                                       out,
                                       h,
                                       w,
                                       adjoint,
                                       nhwc,
                                       keep_weight,
                                       floats(x),
                                       floats(weight),
                                       floats(style),
                                       floats(demod),
                                       floats(noise),
                                       noise.has_value() && noise->size(0) > 1 ? h * w : 0,
                                       floats(bias),
                                       floats(next_style),
                                       static_cast<float*>(data(scratch)),
                                       static_cast<float*>(data(y)),
                                       activation_of(activation),
                                       float(slope),
                                       float(gain),
                                       float(clamp)};
  check(gf_modulated_conv2d_winograd_cpu(&a));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_modulated_conv2d_winograd(Tensor x, Tensor weight, bool adjoint, Tensor? style, Tensor? demod, "
        "Tensor? noise, Tensor? bias, Tensor? next_style, Tensor(a!) scratch, bool keep_weight, Tensor(b!) y, "
        "str activation, float slope, float gain, float clamp) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_modulated_conv2d_winograd", TORCH_BOX(&forward));
}
