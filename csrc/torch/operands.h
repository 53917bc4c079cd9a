// What an operator's tensors have to be, checked before an address is read: shape, dtype, device, layout.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "tensors.h"

namespace gf::torch_binding {

// How [N, C, H, W] lies in memory.
enum class Order { contiguous, nhwc };

inline Order order_of(bool nhwc) { return nhwc ? Order::nhwc : Order::contiguous; }

inline std::string name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Double: return "float64";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: return "of dtype " + std::to_string(int(type));
  }
}

template <class Values>
std::string list_of(const Values& values) {
  std::string text = "[";
  for (const int64_t value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

// Dimensions of one element may have any stride, as in torch.
inline bool lies_as(const Tensor& t, Order order) {
  if (order == Order::contiguous) return t.is_contiguous();
  if (t.dim() != 4) return false;
  int64_t wanted = 1;
  for (const int d : {1, 3, 2, 0}) {
    const int64_t size = t.size(d);
    if (size == 0) return true;
    if (size != 1 && t.stride(d) != wanted) return false;
    wanted *= size;
  }
  return true;
}

// The tensors of one call; `first` says on which device, in which dtype it runs.
class Operands {
 public:
  Operands(const char* op, const char* name, const Tensor& first)
      : op_(op), first_name_(name), first_(first), type_(first.scalar_type()) {
    if (type_ != ScalarType::Float && type_ != ScalarType::Half && type_ != ScalarType::BFloat16)
      refuse(op, ": ", name, " is ", name_of(type_), "; it takes float32, float16 or bfloat16");
  }

  // Where the first tensor holds no numbers of the operation.
  Operands(const char* op, const char* name, const Tensor& first, ScalarType type)
      : op_(op), first_name_(name), first_(first), type_(type) {}

  ScalarType type() const { return type_; }

  gf_dtype dtype() const {
    return type_ == ScalarType::Half ? GF_FLOAT16 : type_ == ScalarType::BFloat16 ? GF_BFLOAT16 : GF_FLOAT32;
  }

  template <class... Parts>
  void want(bool met, const Parts&... parts) const {
    if (!met) refuse(op_, ": ", parts...);
  }

  // [`rank` sizes], before they are read.
  void rank(const char* name, const Tensor& t, int64_t rank) const {
    if (t.dim() != rank)
      refuse(op_, ": ", name, " has rank ", t.dim(), " ", list_of(t.sizes()), "; it takes rank ", rank);
  }

  void tensor(const char* name, const Tensor& t, std::initializer_list<int64_t> shape, ScalarType type,
              Order order = Order::contiguous) const {
    const auto sizes = t.sizes();
    bool same = sizes.size() == shape.size();
    for (size_t i = 0; same && i < shape.size(); ++i) same = sizes[i] == shape.begin()[i];
    if (!same) refuse(op_, ": ", name, " has shape ", list_of(sizes), "; it takes ", list_of(shape));
    placed(name, t, type);
    if (!lies_as(t, order))
      refuse(op_, ": ", name, " ", list_of(sizes), " has strides ", list_of(t.strides()), "; it is ",
             order == Order::nhwc ? "dense as NHWC" : "contiguous", ", copy it");
  }

  void tensor(const char* name, const OptionalTensor& t, std::initializer_list<int64_t> shape, ScalarType type,
              Order order = Order::contiguous) const {
    if (t.has_value()) tensor(name, *t, shape, type, order);
  }

  void placed(const char* name, const Tensor& t, ScalarType type) const {
    if (t.scalar_type() != type) refuse(op_, ": ", name, " is ", name_of(t.scalar_type()), "; it takes ", name_of(type));
    if (t.is_cuda() != first_.is_cuda() || t.get_device_index() != first_.get_device_index())
      refuse(op_, ": ", name, " is on ", device_of(t), ", ", first_name_, " on ", device_of(first_), "; move it there");
  }

 private:
  static std::string device_of(const Tensor& t) {
    if (t.is_cpu()) return "cpu";
    return (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
  }

  const char* op_;
  const char* first_name_;
  const Tensor& first_;
  ScalarType type_;
};

}  // namespace gf::torch_binding
