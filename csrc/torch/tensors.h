// From stable-ABI tensors to the pointers, sizes, dtypes that the C interface takes.
#pragma once

#include <optional>
#include <string>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "guide_fast/status.h"

// only a CUDA build of torch has it; the library loads without
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace gf::torch_binding {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline void check(gf_status status) { STD_TORCH_CHECK(status == GF_OK, gf_last_error()); }

inline gf_dtype dtype_of(const Tensor& t) {
  using torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case ScalarType::Float: return GF_FLOAT32;
    case ScalarType::Half: return GF_FLOAT16;
    case ScalarType::BFloat16: return GF_BFLOAT16;
    case ScalarType::Double: return GF_FLOAT64;
    default: STD_TORCH_CHECK(false, "guide_fast takes float32, float16, bfloat16 tensors"); return GF_FLOAT32;
  }
}

inline void* data(const Tensor& t) { return t.data_ptr(); }
inline void* data(const OptionalTensor& t) { return t.has_value() ? t->data_ptr() : nullptr; }

inline void* stream_of(const Tensor& t) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch has no CUDA streams");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return stream;
}

inline gf_activation activation_of(const std::string& name) {
  if (name == "lrelu") return GF_LRELU;
  STD_TORCH_CHECK(name == "linear", "activation '", name, "' is not known; use 'lrelu' or 'linear'");
  return GF_LINEAR;
}

// Runs the CPU or the CUDA launcher, whichever the tensor lives on.
template <class Arguments>
void launch(const Tensor& like, const Arguments& arguments, gf_status (*cpu)(const Arguments*),
            gf_status (*cuda)(const Arguments*, void*)) {
  if (like.is_cuda()) return check(cuda(&arguments, stream_of(like)));
  check(cpu(&arguments));
}

}  // namespace gf::torch_binding
