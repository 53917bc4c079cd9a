// torch.ops.guide_fast.native_upfirdn2d: the output is allocated by the caller.
#include "guide_fast/upfirdn2d.h"

#include <vector>

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

void forward(Tensor x, Tensor f, Tensor y, std::vector<int64_t> shape, int64_t out_h, int64_t out_w, bool nhwc,
             int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y, int64_t left, int64_t top) {
  STD_TORCH_CHECK(dtype_of(f) == GF_FLOAT32 && f.dim() == 2, "the filter of native_upfirdn2d is float32 [kh, kw]");
  STD_TORCH_CHECK(shape.size() == 4, "native_upfirdn2d takes the four sizes of x");
  const gf_upfirdn2d a{dtype_of(x),
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
