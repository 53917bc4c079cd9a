// torch.ops.guide_fast.native_face_crop: the output is allocated by the caller.
#include "guide_fast/face_crop.h"

#include <vector>

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

gf_axis axis(const Tensor& start, const Tensor& weight, int64_t in) {
  return {in, weight.size(1), weight.size(0), static_cast<const int32_t*>(data(start)),
          static_cast<const float*>(data(weight))};
}

void forward(Tensor x, Tensor y, Tensor row_start, Tensor row_weight, Tensor column_start, Tensor column_weight,
             int64_t height, int64_t width, bool nhwc, std::vector<int64_t> source, std::vector<double> scale,
             std::vector<double> offset) {
  gf_face_crop a{};
  a.dtype = dtype_of(x);
  a.batch = y.size(0);
  a.x = data(x);
  a.y = data(y);
  a.rows = axis(row_start, row_weight, height);
  a.columns = axis(column_start, column_weight, width);
  a.nhwc = nhwc;
  for (int c = 0; c < 3; ++c) {
    a.source[c] = int32_t(source.at(c));
    a.scale[c] = float(scale.at(c));
    a.offset[c] = float(offset.at(c));
  }
  launch(x, a, gf_face_crop_cpu, gf_face_crop_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_face_crop(Tensor x, Tensor(a!) y, Tensor row_start, Tensor row_weight, Tensor column_start, "
        "Tensor column_weight, int height, int width, bool nhwc, int[] source, float[] scale, float[] offset) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) { m.impl("native_face_crop", TORCH_BOX(&forward)); }

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) { m.impl("native_face_crop", TORCH_BOX(&forward)); }
