// guide_fast._native.fused_adam on NumPy arrays; guide_fast._native.cuda.fused_adam on device pointers.
#include "guide_fast/fused_adam.h"

#include <cmath>

#include "arrays.h"

namespace {

using namespace gf::python;
using InPlace = py::array_t<float, py::array::c_style>;  // no conversion: the caller's memory is changed

void factors(gf_fused_adam& a, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay) {
  if (step < 1) throw py::value_error("step " + std::to_string(step) + " is below 1; the first step is 1");
  a.one_minus_beta1 = float(1 - beta1);
  a.beta2 = float(beta2);
  a.one_minus_beta2 = float(1 - beta2);
  a.step_size = float(lr / (1 - std::pow(beta1, double(step))));
  a.bias2_rsqrt = float(1 / std::sqrt(1 - std::pow(beta2, double(step))));
  a.eps = float(eps);
  a.weight_decay = float(weight_decay);
}

void add(py::module_& module, py::module_& cuda) {
  module.def(
      "fused_adam",
      [](InPlace parameter, const Array& gradient, InPlace exp_avg, InPlace exp_avg_sq, int64_t step, double lr,
         double beta1, double beta2, double eps, double weight_decay) {
        const int64_t size = parameter.size();
        if (gradient.size() != size || exp_avg.size() != size || exp_avg_sq.size() != size)
          throw py::value_error("gradient or moments do not have the parameter's " + std::to_string(size) +
                                " elements");
        float *p = parameter.mutable_data(), *m = exp_avg.mutable_data(), *v = exp_avg_sq.mutable_data();
        const void* g = data(gradient);
        const int32_t tensor = 0;
        const int64_t start = 0;
        gf_fused_adam a{};
        a.chunks = 1;
        a.chunk_size = size;
        a.chunk_tensor = &tensor;
        a.chunk_start = &start;
        a.size = &size;
        a.parameter = &p;
        a.gradient = &g;
        a.exp_avg = &m;
        a.exp_avg_sq = &v;
        factors(a, step, lr, beta1, beta2, eps, weight_decay);
        check(without_gil([&] { return gf_fused_adam_cpu(&a); }));
      },
      py::arg("parameter").noconvert(), py::arg("gradient"), py::arg("exp_avg").noconvert(),
      py::arg("exp_avg_sq").noconvert(), py::kw_only(), py::arg("step"), py::arg("lr"), py::arg("beta1") = 0.9,
      py::arg("beta2") = 0.999, py::arg("eps") = 1e-8, py::arg("weight_decay") = 0.0,
      "One Adam step of one float32 array, in place.");
  cuda.def(
      "fused_adam",
      [](uintptr_t parameters, uintptr_t gradients, uintptr_t exp_avgs, uintptr_t exp_avg_sqs, uintptr_t copies,
         uintptr_t sizes, uintptr_t chunk_tensor, uintptr_t chunk_start, int64_t chunks, int64_t chunk_size,
         int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
         const std::string& gradient_dtype, const std::string& copy_dtype, uintptr_t stream) {
        gf_fused_adam a{};
        a.gradient_dtype = dtype_of(gradient_dtype);
        a.copy_dtype = dtype_of(copy_dtype);
        a.chunks = chunks;
        a.chunk_size = chunk_size;
        a.chunk_tensor = pointer<int32_t>(chunk_tensor);
        a.chunk_start = pointer<int64_t>(chunk_start);
        a.size = pointer<int64_t>(sizes);
        a.parameter = pointer<float*>(parameters);
        a.gradient = pointer<const void*>(gradients);
        a.exp_avg = pointer<float*>(exp_avgs);
        a.exp_avg_sq = pointer<float*>(exp_avg_sqs);
        a.copy = pointer<void*>(copies);
        factors(a, step, lr, beta1, beta2, eps, weight_decay);
        check(gf_fused_adam_cuda(&a, pointer<void>(stream)));
      },
      py::arg("parameters"), py::arg("gradients"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"), py::arg("copies"),
      py::arg("sizes"), py::arg("chunk_tensor"), py::arg("chunk_start"), py::kw_only(), py::arg("chunks"),
      py::arg("chunk_size"), py::arg("step"), py::arg("lr"), py::arg("beta1") = 0.9, py::arg("beta2") = 0.999,
      py::arg("eps") = 1e-8, py::arg("weight_decay") = 0.0, py::arg("gradient_dtype") = "float32",
      py::arg("copy_dtype") = "float16", py::arg("stream") = 0,
      "One step of many tensors: device addresses of arrays of device addresses; copies 0 is none.");
}

const Registration registered(add);

}  // namespace
