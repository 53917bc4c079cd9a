// guide_fast._native: the kernels without torch, on NumPy arrays or on raw device pointers.
#include "arrays.h"

PYBIND11_MODULE(_native, module) {
  using namespace gf::python;
  module.doc() = "Kernels of guide_fast on NumPy arrays; `cuda` takes device addresses and a stream handle.";
  auto cuda = module.def_submodule("cuda", "CUDA launchers on raw device pointers; they do not synchronise.");
  module.def("instruction_set", &gf_instruction_set, "0 base, 3 AVX2, 4 AVX-512.");
  module.def("cuda_built", [] { return gf_cuda_built() != 0; }, "Whether this build holds CUDA kernels.");
  module.def("set_num_threads", &gf_set_num_threads, py::arg("threads"), "Before the first operation; 0: all cores.");
  for (const Add add : registrations()) add(module, cuda);
}
