// torch.ops.guide_fast.native_feature_distance*: outputs are allocated by the caller.
#include "guide_fast/feature_distance.h"

#include <vector>

#include "tensors.h"

namespace {

using namespace gf::torch_binding;
using Tensors = std::vector<Tensor>;

// Maps are [N, C, P], with `nhwc` [N, P, C]; `weights` is empty or has one for each.
gf_feature_distance arguments(const Tensors& a, const Tensors& b, const Tensors& weights,
                              const std::vector<double>& scales, const std::vector<int64_t>& nhwc, bool normalised,
                              double eps) {
  STD_TORCH_CHECK(!a.empty() && a.size() <= GF_FEATURE_TAPS && b.size() == a.size() && scales.size() == a.size(),
                  "feature_distance takes 1 to 16 taps of a with as many of b");
  gf_feature_distance args{};
  args.dtype = dtype_of(a[0]);
  args.batch = a[0].size(0);
  args.taps = int(a.size());
  args.normalised = normalised;
  args.eps = float(eps);
  for (size_t t = 0; t < a.size(); ++t) {
    gf_feature_tap& tap = args.tap[t];
    tap.nhwc = int(nhwc[t]);
    tap.channels = a[t].size(tap.nhwc ? 2 : 1);
    tap.pixels = a[t].size(tap.nhwc ? 1 : 2);
    tap.a = data(a[t]);
    tap.b = data(b[t]);
    tap.weight = weights.empty() ? nullptr : static_cast<const float*>(data(weights[t]));
    tap.scale = float(scales[t]);
    tap.shared = b[t].size(0) == 1;
  }
  return args;
}

void forward(Tensors a, Tensors b, Tensors weights, Tensor partial, Tensor out, std::vector<double> scales,
             std::vector<int64_t> nhwc, bool normalised, double eps) {
  gf_feature_distance args = arguments(a, b, weights, scales, nhwc, normalised, eps);
  args.partial = static_cast<float*>(data(partial));
  args.out = static_cast<float*>(data(out));
  launch(a[0], args, gf_feature_distance_cpu, gf_feature_distance_cuda);
}

void backward(Tensor gout, Tensors a, Tensors b, Tensors weights, Tensors ga, Tensors gb, std::vector<double> scales,
              std::vector<int64_t> nhwc, bool normalised, double eps) {
  gf_feature_distance args = arguments(a, b, weights, scales, nhwc, normalised, eps);
  args.gout = static_cast<const float*>(data(gout));
  for (size_t t = 0; t < a.size(); ++t) {
    if (!ga.empty()) args.tap[t].ga = data(ga[t]);
    if (!gb.empty()) args.tap[t].gb = data(gb[t]);
  }
  launch(a[0], args, gf_feature_distance_backward_cpu, gf_feature_distance_backward_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_feature_distance(Tensor[] a, Tensor[] b, Tensor[] weights, Tensor(a!) partial, Tensor(b!) out, "
        "float[] scales, int[] nhwc, bool normalised, float eps) -> ()");
  m.def("native_feature_distance_backward(Tensor gout, Tensor[] a, Tensor[] b, Tensor[] weights, Tensor(a!)[] ga, "
        "Tensor(b!)[] gb, float[] scales, int[] nhwc, bool normalised, float eps) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_feature_distance", TORCH_BOX(&forward));
  m.impl("native_feature_distance_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_feature_distance", TORCH_BOX(&forward));
  m.impl("native_feature_distance_backward", TORCH_BOX(&backward));
}
