// torch.ops.guide_fast.native_bias_act*: outputs are allocated by the caller.
#include "guide_fast/bias_act.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

// x [N, C, H, W] as [outer, channels, inner]: NCHW is N, C, H * W, NHWC is N * H * W, C, 1.
void forward(Tensor x, OptionalTensor bias, Tensor y, int64_t outer, int64_t channels, int64_t inner,
             std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_bias_act", "x", x);
  operands.rank("x", x, 4);
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  const bool nhwc = inner == 1;
  operands.want(channels == c && outer == (nhwc ? n * h * w : n) && inner == (nhwc ? 1 : h * w),
                "outer, channels, inner are ", outer, ", ", channels, ", ", inner, "; x ", list_of(x.sizes()),
                " takes N, C, H * W, as NHWC N * H * W, C, 1");
  operands.tensor("x", x, {n, c, h, w}, operands.type(), order_of(nhwc));
  operands.tensor("bias", bias, {c}, operands.type());
  operands.tensor("y", y, {n, c, h, w}, operands.type(), order_of(nhwc));
  const gf_bias_act a{operands.dtype(), outer, channels, inner, data(x), data(bias), data(y),
                      activation_of(activation), float(slope), float(gain), float(clamp)};
  launch(x, a, gf_bias_act_cpu, gf_bias_act_cuda);
}

void backward(Tensor gy, Tensor y, Tensor gx, int64_t outer, int64_t channels, int64_t inner,
              std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_bias_act_backward", "gy", gy);
  operands.rank("gy", gy, 4);
  const int64_t n = gy.size(0), c = gy.size(1), h = gy.size(2), w = gy.size(3);
  operands.want(outer >= 0 && channels >= 0 && inner >= 0 && outer * channels * inner == n * c * h * w,
                "outer, channels, inner are ", outer, ", ", channels, ", ", inner, "; gy ", list_of(gy.sizes()),
                " has ", n * c * h * w, " elements");
  const Order order = order_of(!lies_as(gy, Order::contiguous));
  operands.tensor("gy", gy, {n, c, h, w}, operands.type(), order);
  operands.tensor("y", y, {n, c, h, w}, operands.type(), order);
  operands.tensor("gx", gx, {n, c, h, w}, operands.type(), order);
  const gf_bias_act_backward a{operands.dtype(), outer, channels, inner, data(gy), data(y), data(gx),
                               activation_of(activation), float(slope), float(gain), float(clamp)};
  launch(gy, a, gf_bias_act_backward_cpu, gf_bias_act_backward_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_bias_act(Tensor x, Tensor? bias, Tensor(a!) y, int outer, int channels, int inner, str activation, "
        "float slope, float gain, float clamp) -> ()");
  m.def("native_bias_act_backward(Tensor gy, Tensor y, Tensor(a!) gx, int outer, int channels, int inner, "
        "str activation, float slope, float gain, float clamp) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_bias_act", TORCH_BOX(&forward));
  m.impl("native_bias_act_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_bias_act", TORCH_BOX(&forward));
  m.impl("native_bias_act_backward", TORCH_BOX(&backward));
}
