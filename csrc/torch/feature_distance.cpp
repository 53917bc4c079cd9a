// torch.ops.guide_fast.native_feature_distance*: outputs are allocated by the caller.
#include "guide_fast/feature_distance.h"

#include <vector>

#include "operands.h"

namespace {

using namespace gf::torch_binding;
using Tensors = std::vector<Tensor>;

const Tensor& first_of(const char* op, const Tensors& a) {
  if (a.empty()) refuse(op, ": a has no taps; it takes 1 to ", int(GF_FEATURE_TAPS));
  return a[0];
}

void as_many(const Operands& operands, const char* name, size_t count, size_t taps) {
  operands.want(count == taps, name, " has ", count, " entries for ", taps, " taps of a; give as many");
}

// Maps are [N, C, P], with `nhwc` [N, P, C]; `weights` is empty or has one for each.
gf_feature_distance arguments(const Operands& operands, const Tensors& a, const Tensors& b, const Tensors& weights,
                              const std::vector<double>& scales, const std::vector<int64_t>& nhwc, bool normalised,
                              double eps) {
  const size_t taps = a.size();
  operands.want(taps <= GF_FEATURE_TAPS, "a has ", taps, " taps; it takes 1 to ", int(GF_FEATURE_TAPS));
  as_many(operands, "b", b.size(), taps);
  as_many(operands, "scales", scales.size(), taps);
  as_many(operands, "nhwc", nhwc.size(), taps);
  if (!weights.empty()) as_many(operands, "weights", weights.size(), taps);
  operands.rank("a", a[0], 3);
  gf_feature_distance args{};
  args.dtype = operands.dtype();
  args.batch = a[0].size(0);
  args.taps = int(a.size());
  args.normalised = normalised;
  args.eps = float(eps);
  for (size_t t = 0; t < a.size(); ++t) {
    gf_feature_tap& tap = args.tap[t];
    operands.rank("a", a[t], 3);
    operands.rank("b", b[t], 3);
    operands.tensor("a", a[t], {args.batch, a[t].size(1), a[t].size(2)}, operands.type());
    operands.tensor("b", b[t], {b[t].size(0) == 1 ? 1 : args.batch, a[t].size(1), a[t].size(2)}, operands.type());
    tap.nhwc = nhwc[t] != 0;
    if (!weights.empty()) operands.tensor("weights", weights[t], {a[t].size(tap.nhwc ? 2 : 1)}, ScalarType::Float);
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
  const Operands operands("native_feature_distance", "a", first_of("native_feature_distance", a));
  gf_feature_distance args = arguments(operands, a, b, weights, scales, nhwc, normalised, eps);
  int64_t blocks = 0;
  for (int t = 0; t < args.taps; ++t) blocks += gf_feature_blocks(args.tap[t].pixels);
  operands.tensor("partial", partial, {args.batch, blocks}, ScalarType::Float);
  operands.tensor("out", out, {args.batch}, ScalarType::Float);
  args.partial = static_cast<float*>(data(partial));
  args.out = static_cast<float*>(data(out));
  launch(a[0], args, gf_feature_distance_cpu, gf_feature_distance_cuda);
}

void backward(Tensor gout, Tensors a, Tensors b, Tensors weights, Tensors ga, Tensors gb, std::vector<double> scales,
              std::vector<int64_t> nhwc, bool normalised, double eps) {
  const Operands operands("native_feature_distance_backward", "a", first_of("native_feature_distance_backward", a));
  gf_feature_distance args = arguments(operands, a, b, weights, scales, nhwc, normalised, eps);
  operands.tensor("gout", gout, {args.batch}, ScalarType::Float);
  if (!ga.empty()) as_many(operands, "ga", ga.size(), a.size());
  if (!gb.empty()) as_many(operands, "gb", gb.size(), a.size());
  args.gout = static_cast<const float*>(data(gout));
  for (size_t t = 0; t < a.size(); ++t) {
    const int64_t second = a[t].size(1), third = a[t].size(2);
    if (!ga.empty()) {
      operands.tensor("ga", ga[t], {args.batch, second, third}, operands.type());
      args.tap[t].ga = data(ga[t]);
    }
    if (!gb.empty()) {  // of every image, also where b has one
      operands.tensor("gb", gb[t], {args.batch, second, third}, operands.type());
      args.tap[t].gb = data(gb[t]);
    }
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
