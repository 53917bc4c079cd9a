// torch.ops.guide_fast.native_upfirdn2d: the output is allocated by the caller.
#include "guide_fast/upfirdn2d.h"

#include <cstdlib>
#include <vector>

#include "operands.h"

namespace {

using namespace gf::torch_binding;

constexpr int64_t kMost = int64_t(1) << 24;  // of what the C interface takes as int

void forward(Tensor x, Tensor f, Tensor y, std::vector<int64_t> shape, int64_t out_h, int64_t out_w, bool nhwc,
             int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y, int64_t left, int64_t top) {
  const Operands operands("native_upfirdn2d", "x", x);
  operands.rank("x", x, 4);
  operands.rank("f", f, 2);
  operands.want(list_of(shape) == list_of(x.sizes()), "shape is ", list_of(shape), "; x has ", list_of(x.sizes()));
  operands.tensor("x", x, {shape[0], shape[1], shape[2], shape[3]}, operands.type(), order_of(nhwc));
  operands.tensor("f", f, {f.size(0), f.size(1)}, ScalarType::Float);
  operands.tensor("y", y, {shape[0], shape[1], out_h, out_w}, operands.type(), order_of(nhwc));
  for (const int64_t number : {up_x, up_y, down_x, down_y, left, top})
    operands.want(std::abs(number) < kMost, "a factor or a padding is ", number, "; it lies within ", kMost);
  const gf_upfirdn2d a{operands.dtype(),
                       nhwc,
                       shape[0],
                       shape[1],
                       shape[2],
                       shape[3],
                       out_h,
                       out_w,
                       data(x),
                       static_cast<const float*>(data(f)),
                       data(y),
                       int(f.size(0)),
                       int(f.size(1)),
                       int(up_x),
                       int(up_y),
                       int(down_x),
                       int(down_y),
                       int(left),
                       int(top)};
  launch(x, a, gf_upfirdn2d_cpu, gf_upfirdn2d_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_upfirdn2d(Tensor x, Tensor f, Tensor(a!) y, int[] shape, int out_h, int out_w, bool nhwc, "
        "int up_x, int up_y, int down_x, int down_y, int left, int top) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) { m.impl("native_upfirdn2d", TORCH_BOX(&forward)); }

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) { m.impl("native_upfirdn2d", TORCH_BOX(&forward)); }
