// guide_fast._native.feature_distance on NumPy arrays; guide_fast._native.cuda.feature_distance on device pointers.
#include "guide_fast/feature_distance.h"

#include "arrays.h"

namespace {

using namespace gf::python;

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "feature_distance",
      [](const std::vector<Array>& a, const std::vector<Array>& b, const std::vector<float>& scales, bool normalised,
         float eps) {
        if (a.empty() || a.size() > GF_FEATURE_TAPS || b.size() != a.size())
          throw py::value_error("feature_distance takes 1 to 16 taps of a with as many of b, not " +
                                std::to_string(a.size()) + " with " + std::to_string(b.size()));
        if (!scales.empty() && scales.size() != a.size())
          throw py::value_error(std::to_string(scales.size()) + " scales for " + std::to_string(a.size()) + " taps");
        gf_feature_distance args{};
        args.dtype = GF_FLOAT32;
        args.batch = a[0].ndim() == 4 ? a[0].shape(0) : 0;
        args.taps = int(a.size());
        args.normalised = normalised;
        args.eps = eps;
        int64_t blocks = 0;
        for (size_t t = 0; t < a.size(); ++t) {
          want_rank(a[t], 4, "a");
          want_rank(b[t], 4, "b");
          for (int axis = 0; axis < 4; ++axis)
            if (a[t].shape(axis) != b[t].shape(axis) || a[t].shape(0) != args.batch)
              throw py::value_error("tap " + std::to_string(t) + " of a does not have the shape of b's");
          gf_feature_tap& tap = args.tap[t];
          tap.channels = a[t].shape(1);
          tap.pixels = a[t].shape(2) * a[t].shape(3);
          tap.a = data(a[t]);
          tap.b = data(b[t]);
          tap.scale = scales.empty() ? 1.f : scales[t];
          blocks += gf_feature_blocks(tap.pixels);
        }
        Array out(args.batch);
        std::vector<float> partial(size_t(args.batch * blocks));
        args.partial = partial.data();
        args.out = out.mutable_data();
        check(without_gil([&] { return gf_feature_distance_cpu(&args); }));
        return out;
      },
      py::arg("a"), py::arg("b"), py::kw_only(), py::arg("scales") = std::vector<float>{},
      py::arg("normalised_b") = false, py::arg("eps") = 1e-10f,
      "Lists of feature maps [N, C, H, W] float32 -> the sum of their distances [N].");
  cuda.def(
      "feature_distance",
      [](uintptr_t a, uintptr_t b, uintptr_t weight, uintptr_t partial, uintptr_t out, int64_t batch,
         int64_t channels, int64_t pixels, const std::string& dtype, bool nhwc, bool shared, bool normalised,
         float scale, float eps, uintptr_t stream) {
        gf_feature_distance args{};
        args.dtype = dtype_of(dtype);
        args.batch = batch;
        args.taps = 1;
        args.tap[0] = {channels, pixels, pointer<void>(a), pointer<void>(b), pointer<float>(weight), nullptr, nullptr,
                       scale, nhwc, shared};
        args.normalised = normalised;
        args.eps = eps;
        args.partial = pointer<float>(partial);
        args.out = pointer<float>(out);
        check(gf_feature_distance_cuda(&args, pointer<void>(stream)));
      },
      py::arg("a"), py::arg("b"), py::arg("weight"), py::arg("partial"), py::arg("out"), py::kw_only(),
      py::arg("batch"), py::arg("channels"), py::arg("pixels"), py::arg("dtype") = "float16",
      py::arg("nhwc") = false, py::arg("shared") = false, py::arg("normalised_b") = false, py::arg("scale") = 1.f,
      py::arg("eps") = 1e-10f, py::arg("stream") = 0,
      "One tap on device addresses; `partial` is float32 scratch of batch * ceil(pixels / 128), weight 0 is none.");
}

const Registration registered(add);

}  // namespace
