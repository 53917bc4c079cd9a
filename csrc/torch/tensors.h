// From stable-ABI tensors to the pointers, sizes, dtypes that the C interface takes.
#pragma once

#include <optional>
#include <sstream>
#include <stdexcept>
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

using torch::headeronly::ScalarType;

// The same text in every place: no file, no line, which STD_TORCH_CHECK puts before a user's sentence.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

inline void check(gf_status status) {
  if (status != GF_OK) refuse(gf_last_error());
}

inline void* data(const Tensor& t) { return t.data_ptr(); }
inline void* data(const OptionalTensor& t) { return t.has_value() ? t->data_ptr() : nullptr; }

inline void* stream_of(const Tensor& t) {
  if (aoti_torch_get_current_cuda_stream == nullptr) refuse("this torch has no CUDA streams");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return stream;
}

inline gf_activation activation_of(const std::string& name) {
  if (name == "lrelu") return GF_LRELU;
  if (name != "linear") refuse("activation '", name, "' is not known; use 'lrelu' or 'linear'");
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
