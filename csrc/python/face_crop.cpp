// guide_fast._native.face_crop on NumPy arrays; guide_fast._native.cuda.face_crop on device pointers.
#include "guide_fast/face_crop.h"

#include "arrays.h"

namespace {

using namespace gf::python;
using Starts = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

gf_axis axis(const Starts& start, const Array& weight, int64_t in, const char* name) {
  if (start.ndim() != 1 || weight.ndim() != 2 || weight.shape(1) != start.shape(0) || weight.shape(0) < 1)
    throw py::value_error(std::string(name) + " takes starts [out] with weights [taps, out]");
  for (py::ssize_t i = 0; i < start.shape(0); ++i)
    if (start.data()[i] < 0 || start.data()[i] + weight.shape(0) > in)
      throw py::value_error(std::string(name) + " reads past the image at output " + std::to_string(i));
  return {in, weight.shape(1), weight.shape(0), start.data(), weight.data()};
}

void affine(gf_face_crop& a, const std::vector<int>& source, const std::vector<float>& scale,
            const std::vector<float>& offset) {
  if (source.size() != 3 || scale.size() != 3 || offset.size() != 3)
    throw py::value_error("source, scale, offset have one entry for each of 3 channels");
  for (int c = 0; c < 3; ++c) {
    if (source[c] < 0 || source[c] > 2) throw py::value_error("source " + std::to_string(source[c]) + " is no channel");
    a.source[c] = source[c];
    a.scale[c] = scale[c];
    a.offset[c] = offset[c];
  }
}

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "face_crop",
      [](const Array& image, const Starts& row_start, const Array& row_weight, const Starts& column_start,
         const Array& column_weight, const std::vector<int>& source, const std::vector<float>& scale,
         const std::vector<float>& offset) {
        want_rank(image, 4, "image");
        if (image.shape(1) != 3) throw py::value_error("image has " + std::to_string(image.shape(1)) + " channels, not 3");
        gf_face_crop a{};
        a.dtype = GF_FLOAT32;
        a.batch = image.shape(0);
        a.x = data(image);
        a.rows = axis(row_start, row_weight, image.shape(2), "rows");
        a.columns = axis(column_start, column_weight, image.shape(3), "columns");
        affine(a, source, scale, offset);
        Array y({image.shape(0), py::ssize_t(3), py::ssize_t(a.rows.out), py::ssize_t(a.columns.out)});
        a.y = y.mutable_data();
        check(without_gil([&] { return gf_face_crop_cpu(&a); }));
        return y;
      },
      py::arg("image"), py::arg("row_start"), py::arg("row_weight"), py::arg("column_start"),
      py::arg("column_weight"), py::kw_only(), py::arg("source") = std::vector<int>{0, 1, 2},
      py::arg("scale") = std::vector<float>{1, 1, 1}, py::arg("offset") = std::vector<float>{0, 0, 0},
      "image [N, 3, H, W] float32 -> [N, 3, rows, columns]; starts [out], weights [taps, out] of each axis.");
  cuda.def(
      "face_crop",
      [](uintptr_t image, uintptr_t y, uintptr_t row_start, uintptr_t row_weight, uintptr_t column_start,
         uintptr_t column_weight, int64_t batch, int64_t height, int64_t width, int64_t rows, int64_t columns,
         int64_t row_taps, int64_t column_taps, const std::string& dtype, bool nhwc, const std::vector<int>& source,
         const std::vector<float>& scale, const std::vector<float>& offset, uintptr_t stream) {
        gf_face_crop a{};
        a.dtype = dtype_of(dtype);
        a.batch = batch;
        a.x = pointer<void>(image);
        a.y = pointer<void>(y);
        a.rows = {height, rows, row_taps, pointer<int32_t>(row_start), pointer<float>(row_weight)};
        a.columns = {width, columns, column_taps, pointer<int32_t>(column_start), pointer<float>(column_weight)};
        a.nhwc = nhwc;
        affine(a, source, scale, offset);
        check(gf_face_crop_cuda(&a, pointer<void>(stream)));
      },
      py::arg("image"), py::arg("y"), py::arg("row_start"), py::arg("row_weight"), py::arg("column_start"),
      py::arg("column_weight"), py::kw_only(), py::arg("batch"), py::arg("height"), py::arg("width"),
      py::arg("rows"), py::arg("columns"), py::arg("row_taps"), py::arg("column_taps"), py::arg("dtype") = "float16",
      py::arg("nhwc") = false, py::arg("source") = std::vector<int>{0, 1, 2},
      py::arg("scale") = std::vector<float>{1, 1, 1}, py::arg("offset") = std::vector<float>{0, 0, 0},
      py::arg("stream") = 0, "The same on device addresses.");
}

const Registration registered(add);

}  // namespace
