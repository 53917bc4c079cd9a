// torch.ops.guide_fast.native_empty: large CPU outputs from blocks that are kept and used again.
//
// A fresh activation of 64 MB costs more in page faults than the arithmetic that fills it. glibc can be told to keep freed
// memory, but an aligned block that was freed does not fit the next request of the same size, and the heap grows.
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <list>
#include <mutex>
#include <unordered_map>

#include "tensors.h"

namespace {

using torch::stable::Tensor;

constexpr size_t kPage = size_t(2) << 20;      // of huge pages: blocks are multiples of it
constexpr int64_t kMostIdle = 1024;            // MB kept while nobody uses them, where GUIDE_FAST_CACHE_MB says nothing
constexpr int64_t kLargest = int64_t(1) << 40; // elements of a tensor

// Of GUIDE_FAST_CACHE_MB; what is no number was refused when the library was loaded (kernels/_extension.py).
size_t idle_bytes() {
  const char* asked = std::getenv("GUIDE_FAST_CACHE_MB");
  const int64_t most = asked && *asked ? std::strtoll(asked, nullptr, 10) : kMostIdle;
  return size_t(std::clamp<int64_t>(most, 0, int64_t(1) << 30)) << 20;
}

class Blocks {
 public:
  void* take(size_t bytes) {
    bytes = rounded(bytes);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto idle = idle_.rbegin(); idle != idle_.rend(); ++idle)  // the last one freed is warm
        if (idle->bytes == bytes) {
          void* at = idle->at;
          idle_bytes_ -= bytes;
          used_[at] = bytes;
          idle_.erase(std::next(idle).base());
          return at;
        }
    }
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) gf::torch_binding::refuse("guide_fast could not get ", bytes, " bytes of memory");
    madvise(at, bytes, MADV_HUGEPAGE);  // a hint: without huge pages the first use is slower
    std::lock_guard<std::mutex> lock(mutex_);
    used_[at] = bytes;
    return at;
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  void give_back(void* at) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto used = used_.find(at);
    idle_.push_back({at, used->second});
    idle_bytes_ += used->second;
    used_.erase(used);
    while (idle_bytes_ > most_idle_) {  // the oldest first
      munmap(idle_.front().at, idle_.front().bytes);
      idle_bytes_ -= idle_.front().bytes;
      idle_.pop_front();
    }
  }

 private:
  struct Idle {
    void* at;
    size_t bytes;
  };

  static size_t rounded(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

  std::mutex mutex_;
  std::list<Idle> idle_;
  std::unordered_map<void*, size_t> used_;
  size_t idle_bytes_ = 0;
  const size_t most_idle_ = idle_bytes();
};

// never destroyed: a tensor may outlive every static object
Blocks& blocks() {
  static Blocks* all = [] {
    auto* made = new Blocks;
    // a fork waits for the lock, so that no child starts with it held by a thread it does not have
    pthread_atfork([] { blocks().lock(); }, [] { blocks().unlock(); }, [] { blocks().unlock(); });
    return made;
  }();
  return *all;
}

void give_back(void* at) { blocks().give_back(at); }

Tensor empty(int64_t n, int64_t c, int64_t h, int64_t w, bool nhwc) {
  const int64_t sizes[] = {n, c, h, w};
  int64_t elements = 1;
  for (const int64_t size : sizes) {
    if (size < 1 || size > kLargest / elements)
      gf::torch_binding::refuse("native_empty: a size is ", size, " in [", n, ", ", c, ", ", h, ", ", w,
                                "]; each is at least 1, all together at most 2^40 elements");
    elements *= size;
  }
  const int64_t rows[] = {c * h * w, h * w, w, 1}, pixels[] = {h * w * c, 1, w * c, c};
  return torch::stable::from_blob(blocks().take(size_t(elements) * sizeof(float)), {sizes, 4},
                                  {nhwc ? pixels : rows, 4},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  torch::headeronly::ScalarType::Float, &give_back);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_empty(int n, int c, int h, int w, bool nhwc) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CompositeExplicitAutograd, m) { m.impl("native_empty", TORCH_BOX(&empty)); }
