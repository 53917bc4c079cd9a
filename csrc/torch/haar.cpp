// torch.ops.guide_fast.native_haar*: outputs are allocated by the caller.
#include "guide_fast/haar.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

void forward(Tensor x, OptionalTensor style, Tensor y, bool nhwc) {
  const Operands operands("native_haar", "x", x);
  operands.rank("x", x, 4);
  const int64_t n = x.size(0), bands = x.size(1), h = x.size(2), w = x.size(3);
  operands.want(bands % 4 == 0, "x has ", bands, " channels; it takes four bands for each channel of y");
  operands.tensor("x", x, {n, bands, h, w}, operands.type(), order_of(nhwc));
  operands.tensor("style", style, {n, bands}, operands.type());
  operands.tensor("y", y, {n, bands / 4, 2 * h, 2 * w}, operands.type(), order_of(nhwc));
  const gf_haar a{operands.dtype(), nhwc, n, bands / 4, h, w, data(x), data(style), data(y)};
  launch(x, a, gf_haar_cpu, gf_haar_cuda);
}

void backward(Tensor gy, OptionalTensor x, OptionalTensor style, OptionalTensor gx, OptionalTensor gstyle, bool nhwc) {
  const Operands operands("native_haar_backward", "gy", gy);
  operands.rank("gy", gy, 4);
  const int64_t n = gy.size(0), c = gy.size(1), h = gy.size(2) / 2, w = gy.size(3) / 2;
  operands.tensor("gy", gy, {n, c, 2 * h, 2 * w}, operands.type(), order_of(nhwc));
  operands.tensor("x", x, {n, 4 * c, h, w}, operands.type(), order_of(nhwc));
  operands.tensor("style", style, {n, 4 * c}, operands.type());
  operands.tensor("gx", gx, {n, 4 * c, h, w}, operands.type(), order_of(nhwc));
  operands.tensor("gstyle", gstyle, {n, 4 * c}, ScalarType::Float);
  const gf_haar_backward a{operands.dtype(), nhwc, n, c, h, w, data(gy), data(x), data(style), data(gx), static_cast<float*>(data(gstyle))};
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
