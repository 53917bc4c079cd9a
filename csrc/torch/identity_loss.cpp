// torch.ops.guide_fast.native_identity_loss: outputs are allocated by the caller.
#include "guide_fast/identity_loss.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

gf_identity_kind kind_of(const std::string& name) {
  if (name == "cosine") return GF_COSINE;
  if (name == "l2") return GF_L2;
  if (name != "squared_l2") refuse("kind '", name, "' is not known; use 'cosine', 'l2' or 'squared_l2'");
  return GF_SQUARED_L2;
}

void forward(Tensor a, Tensor b, Tensor loss, OptionalTensor da, OptionalTensor db, std::string kind, bool normalise,
             bool reduce, double scale, double eps) {
  const Operands operands("native_identity_loss", "a", a);
  operands.rank("a", a, 2);
  const int64_t rows = a.size(0), width = a.size(1);
  operands.tensor("a", a, {rows, width}, operands.type());
  operands.tensor("b", b, {rows, width}, operands.type());
  if (reduce)
    operands.tensor("loss", loss, {}, ScalarType::Float);
  else
    operands.tensor("loss", loss, {rows}, ScalarType::Float);
  operands.tensor("da", da, {rows, width}, ScalarType::Float);
  operands.tensor("db", db, {rows, width}, ScalarType::Float);
  const gf_identity_loss args{operands.dtype(), rows, width, data(a), data(b), static_cast<float*>(data(loss)),
                              static_cast<float*>(data(da)), static_cast<float*>(data(db)), kind_of(kind), normalise,
                              reduce, float(scale), float(eps)};
  launch(a, args, gf_identity_loss_cpu, gf_identity_loss_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_identity_loss(Tensor a, Tensor b, Tensor(a!) loss, Tensor(b!)? da, Tensor(c!)? db, str kind, "
        "bool normalise, bool reduce, float scale, float eps) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) { m.impl("native_identity_loss", TORCH_BOX(&forward)); }

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) { m.impl("native_identity_loss", TORCH_BOX(&forward)); }
