// torch.ops.guide_fast.native_face_crop: the output is allocated by the caller.
#include "guide_fast/face_crop.h"

#include <vector>

#include "operands.h"

namespace {

using namespace gf::torch_binding;

gf_axis axis(const Operands& operands, const char* start_name, const Tensor& start, const char* weight_name,
             const Tensor& weight, int64_t in) {
  operands.rank(weight_name, weight, 2);
  operands.tensor(weight_name, weight, {weight.size(0), weight.size(1)}, ScalarType::Float);
  operands.tensor(start_name, start, {weight.size(1)}, ScalarType::Int);
  return {in, weight.size(1), weight.size(0), static_cast<const int32_t*>(data(start)),
          static_cast<const float*>(data(weight))};
}

void forward(Tensor x, Tensor y, Tensor row_start, Tensor row_weight, Tensor column_start, Tensor column_weight,
             int64_t height, int64_t width, bool nhwc, std::vector<int64_t> source, std::vector<double> scale,
             std::vector<double> offset) {
  const Operands operands("native_face_crop", "x", x);
  gf_face_crop a{};
  a.dtype = operands.dtype();
  a.x = data(x);
  a.y = data(y);
  a.rows = axis(operands, "row_start", row_start, "row_weight", row_weight, height);
  a.columns = axis(operands, "column_start", column_start, "column_weight", column_weight, width);
  operands.rank("x", x, 4);
  a.batch = x.size(0);
  if (nhwc)
    operands.tensor("x", x, {a.batch, height, width, 3}, operands.type());
  else
    operands.tensor("x", x, {a.batch, 3, height, width}, operands.type());
  operands.tensor("y", y, {a.batch, 3, a.rows.out, a.columns.out}, operands.type());
  operands.want(source.size() == 3 && scale.size() == 3 && offset.size() == 3, "source, scale, offset have ",
                source.size(), ", ", scale.size(), ", ", offset.size(), " entries; it takes 3 of each");
  for (const int64_t channel : source)
    operands.want(channel >= 0 && channel < 3, "source has channel ", channel, "; it is 0, 1 or 2");
  a.nhwc = nhwc;
  for (int c = 0; c < 3; ++c) {
    a.source[c] = int32_t(source[c]);
    a.scale[c] = float(scale[c]);
    a.offset[c] = float(offset[c]);
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
