// torch.ops.guide_fast.native_fused_adam: what it changes lies behind the addresses in `table`.
#include "guide_fast/fused_adam.h"

#include <vector>

#include "operands.h"

namespace {

using namespace gf::torch_binding;

// table: int64 [8, tensors], rows of addresses of parameters, gradients, exp_avgs, exp_avg_sqs, copies, then sizes, kinds,
// settings. factors: 7 numbers for all tensors, unless factor_table [settings, 7] holds them.
void step(Tensor table, Tensor chunk_tensor, Tensor chunk_start, int64_t chunk_size, OptionalTensor factor_table,
          std::vector<double> factors) {
  const Operands operands("native_fused_adam", "table", table, ScalarType::Long);
  operands.rank("table", table, 2);
  operands.rank("chunk_tensor", chunk_tensor, 1);
  operands.tensor("table", table, {8, table.size(1)}, ScalarType::Long);
  operands.tensor("chunk_tensor", chunk_tensor, {chunk_tensor.size(0)}, ScalarType::Int);
  operands.tensor("chunk_start", chunk_start, {chunk_tensor.size(0)}, ScalarType::Long);
  if (factor_table) {
    operands.rank("factor_table", *factor_table, 2);
    operands.tensor("factor_table", factor_table, {factor_table->size(0), 7}, ScalarType::Float);
  } else {
    operands.want(factors.size() == 7, "factors has ", factors.size(), " entries; it takes 7");
  }
  if (table.is_cpu()) {  // the C interface does not know how many tensors, how many settings there are
    for (int64_t i = 0; i < chunk_tensor.size(0); ++i) {
      const int32_t tensor = static_cast<const int32_t*>(data(chunk_tensor))[i];
      operands.want(tensor >= 0 && tensor < table.size(1), "chunk_tensor has tensor ", tensor, "; table has ",
                    table.size(1));
    }
    for (int64_t i = 0; factor_table && i < table.size(1); ++i) {
      const int64_t setting = static_cast<const int64_t*>(data(table))[7 * table.size(1) + i];
      operands.want(setting >= 0 && setting < factor_table->size(0), "table has setting ", setting,
                    "; factor_table has ", factor_table->size(0));
    }
  }
  char* row = static_cast<char*>(data(table));
  const int64_t stride = table.size(1) * int64_t(sizeof(int64_t));
  gf_fused_adam a{};
  a.chunks = chunk_tensor.size(0);
  a.chunk_size = chunk_size;
  a.chunk_tensor = static_cast<const int32_t*>(data(chunk_tensor));
  a.chunk_start = static_cast<const int64_t*>(data(chunk_start));
  a.parameter = reinterpret_cast<float* const*>(row);
  a.gradient = reinterpret_cast<const void* const*>(row + stride);
  a.exp_avg = reinterpret_cast<float* const*>(row + 2 * stride);
  a.exp_avg_sq = reinterpret_cast<float* const*>(row + 3 * stride);
  a.copy = reinterpret_cast<void* const*>(row + 4 * stride);
  a.size = reinterpret_cast<const int64_t*>(row + 5 * stride);
  a.kind = reinterpret_cast<const int64_t*>(row + 6 * stride);
  if (factor_table) {
    a.setting = reinterpret_cast<const int64_t*>(row + 7 * stride);
    a.factors = static_cast<const float*>(data(factor_table));
  } else {
    a.one_minus_beta1 = float(factors[0]);
    a.beta2 = float(factors[1]);
    a.one_minus_beta2 = float(factors[2]);
    a.step_size = float(factors[3]);
    a.bias2_rsqrt = float(factors[4]);
    a.eps = float(factors[5]);
    a.weight_decay = float(factors[6]);
  }
  launch(table, a, gf_fused_adam_cpu, gf_fused_adam_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_fused_adam(Tensor table, Tensor chunk_tensor, Tensor chunk_start, int chunk_size, "
        "Tensor? factor_table, float[] factors) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) { m.impl("native_fused_adam", TORCH_BOX(&step)); }

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) { m.impl("native_fused_adam", TORCH_BOX(&step)); }
