// guide_fast._native.identity_loss on NumPy arrays; guide_fast._native.cuda.identity_loss on device pointers.
#include "guide_fast/identity_loss.h"

#include "arrays.h"

namespace {

using namespace gf::python;

gf_identity_kind kind_of(const std::string& name) {
  if (name == "cosine") return GF_COSINE;
  if (name == "l2") return GF_L2;
  if (name == "squared_l2") return GF_SQUARED_L2;
  throw py::value_error("kind '" + name + "' is not known; use 'cosine', 'l2' or 'squared_l2'");
}

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "identity_loss",
      [](const Array& a, const Array& b, const std::string& kind, bool normalise, float scale, float eps) {
        want_rank(a, 2, "a");
        want_rank(b, 2, "b");
        if (a.shape(0) != b.shape(0) || a.shape(1) != b.shape(1))
          throw py::value_error("b is [" + std::to_string(b.shape(0)) + ", " + std::to_string(b.shape(1)) +
                                "], a is [" + std::to_string(a.shape(0)) + ", " + std::to_string(a.shape(1)) + "]");
        Array loss(a.shape(0)), da({a.shape(0), a.shape(1)});
        const gf_identity_loss args{GF_FLOAT32, a.shape(0), a.shape(1), data(a), data(b), loss.mutable_data(),
                                    da.mutable_data(), nullptr, kind_of(kind), normalise, 0, scale, eps};
        check(without_gil([&] { return gf_identity_loss_cpu(&args); }));
        return py::make_tuple(loss, da);
      },
      py::arg("a"), py::arg("b"), py::kw_only(), py::arg("kind") = "cosine", py::arg("normalise") = true,
      py::arg("scale") = 1.f, py::arg("eps") = 1e-8f,
      "Embeddings a, b [N, E] float32 -> (loss [N], d loss / d a [N, E]).");
  cuda.def(
      "identity_loss",
      [](uintptr_t a, uintptr_t b, uintptr_t loss, uintptr_t da, uintptr_t db, int64_t rows, int64_t width,
         const std::string& dtype, const std::string& kind, bool normalise, bool reduce, float scale, float eps,
         uintptr_t stream) {
        const gf_identity_loss args{dtype_of(dtype), rows, width, pointer<void>(a), pointer<void>(b),
                                    pointer<float>(loss), pointer<float>(da), pointer<float>(db), kind_of(kind),
                                    normalise, reduce, scale, eps};
        check(gf_identity_loss_cuda(&args, pointer<void>(stream)));
      },
      py::arg("a"), py::arg("b"), py::arg("loss"), py::arg("da") = 0, py::arg("db") = 0, py::kw_only(),
      py::arg("rows"), py::arg("width"), py::arg("dtype") = "float16", py::arg("kind") = "cosine",
      py::arg("normalise") = true, py::arg("reduce") = false, py::arg("scale") = 1.f, py::arg("eps") = 1e-8f,
      py::arg("stream") = 0, "The same on device addresses; loss and gradients are float32, a gradient of 0 is left out.");
}

const Registration registered(add);

}  // namespace
