// torch.ops.guide_fast.native_bias_act*: outputs are allocated by the caller.
#include "guide_fast/bias_act.h"

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

void forward(Tensor x, OptionalTensor bias, Tensor y, int64_t outer, int64_t channels, int64_t inner,
             std::string activation, double slope, double gain, double clamp) {
  const gf_bias_act a{dtype_of(x), outer, channels, inner, data(x), data(bias), data(y),
                      activation_of(activation), float(slope), float(gain), float(clamp)};
  launch(x, a, gf_bias_act_cpu, gf_bias_act_cuda);
}

void backward(Tensor gy, Tensor y, Tensor gx, int64_t outer, int64_t channels, int64_t inner,
              std::string activation, double slope, double gain, double clamp) {
  const gf_bias_act_backward a{dtype_of(gy), outer, channels, inner, data(gy), data(y), data(gx),
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
