// torch.ops.guide_fast.native_haar*: outputs are allocated by the caller.
#include "guide_fast/haar.h"

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

void forward(Tensor x, OptionalTensor style, Tensor y, bool nhwc) {
  const gf_haar a{dtype_of(x), nhwc, x.size(0), x.size(1) / 4, x.size(2), x.size(3), data(x), data(style), data(y)};
  launch(x, a, gf_haar_cpu, gf_haar_cuda);
}

void backward(Tensor gy, OptionalTensor x, OptionalTensor style, OptionalTensor gx, OptionalTensor gstyle, bool nhwc) {
  const gf_haar_backward a{dtype_of(gy), nhwc, gy.size(0), gy.size(1), gy.size(2) / 2, gy.size(3) / 2,
                           data(gy), data(x), data(style), data(gx), static_cast<float*>(data(gstyle))};
  launch(gy, a, gf_haar_backward_cpu, gf_haar_backward_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_haar(Tensor x, Tensor? style, Tensor(a!) y, bool nhwc) -> ()");
  m.def("native_haar_backward(Tensor gy, Tensor? x, Tensor? style, Tensor(a!)? gx, Tensor(b!)? gstyle, bool nhwc) "
        "-> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_haar", TORCH_BOX(&forward));
  m.impl("native_haar_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_haar", TORCH_BOX(&forward));
  m.impl("native_haar_backward", TORCH_BOX(&backward));
}
