// Gives the kernels PyTorch's thread pool when the library is loaded into a torch process.
#include "tensors.h"

namespace {

void on_torch_threads(int64_t begin, int64_t end, int64_t grain, gf_range_body body, void* context) {
  torch::stable::parallel_for(begin, end, grain, [&](int64_t b, int64_t e) { body(b, e, context); });
}

const bool installed = (gf_set_parallel_hook(on_torch_threads), true);

}  // namespace
