// Splits a range over threads: PyTorch's pool inside a torch process, our own elsewhere.
#pragma once

#include <cstdint>

namespace gf {

using range_body = void (*)(int64_t begin, int64_t end, void* context);
using parallel_hook = void (*)(int64_t begin, int64_t end, int64_t grain, range_body body, void* context);

void set_parallel_hook(parallel_hook hook);
void run_parallel(int64_t begin, int64_t end, int64_t grain, range_body body, void* context);

// body(begin, end) over disjoint ranges of at least `grain`; returns when all are done.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  run_parallel(
      begin, end, grain, [](int64_t b, int64_t e, void* context) { (*static_cast<const Body*>(context))(b, e); },
      const_cast<Body*>(&body));
}

}  // namespace gf
