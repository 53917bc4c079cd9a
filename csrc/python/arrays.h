// From NumPy arrays to what the C interface takes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "guide_fast/status.h"

namespace gf::python {

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
using OptionalArray = std::optional<Array>;

inline void check(gf_status status) {
  if (status == GF_INVALID) throw py::value_error(gf_last_error());
  if (status != GF_OK) throw std::runtime_error(gf_last_error());
}

template <class Launch>
gf_status without_gil(const Launch& launch) {
  py::gil_scoped_release release;
  return launch();
}

inline const float* data(const Array& a) { return a.data(); }
inline const float* data(const OptionalArray& a) { return a ? a->data() : nullptr; }

inline void want_rank(const Array& a, int rank, const char* name) {
  if (a.ndim() != rank)
    throw py::value_error(std::string(name) + " has rank " + std::to_string(a.ndim()) + "; it takes rank " +
                          std::to_string(rank));
  if (a.size() == 0) throw py::value_error(std::string(name) + " is empty; give at least one of each");
}

inline gf_dtype dtype_of(const std::string& name) {
  if (name == "float32") return GF_FLOAT32;
  if (name == "float16") return GF_FLOAT16;
  if (name == "bfloat16") return GF_BFLOAT16;
  throw py::value_error("dtype '" + name + "' is not known; use float32, float16 or bfloat16");
}

inline gf_activation activation_of(const std::string& name) {
  if (name == "lrelu") return GF_LRELU;
  if (name == "linear") return GF_LINEAR;
  throw py::value_error("activation '" + name + "' is not known; use 'lrelu' or 'linear'");
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Each operation adds its functions, to the module on NumPy arrays, to `cuda` on device addresses, by
// `const Registration registered(add);` in its file.
using Add = void (*)(py::module_& module, py::module_& cuda);

inline std::vector<Add>& registrations() {
  static std::vector<Add> all;
  return all;
}

struct Registration {
  explicit Registration(Add add) { registrations().push_back(add); }
};

}  // namespace gf::python
