// torch.ops.guide_fast.native_empty: large CPU outputs from blocks that are kept and used again.
//
// A fresh activation of 64 MB costs more in page faults than the arithmetic that fills it. glibc can be told to keep freed
// memory, but an aligned block that was freed does not fit the next request of the same size, and the heap grows.
#include <pthread.h>
#include <sys/mman.h>

#include <iterator>
#include <list>
#include <mutex>
#include <unordered_map>

#include "tensors.h"

namespace {

using torch::stable::Tensor;

constexpr size_t kPage = size_t(2) << 20;      // of huge pages: blocks are multiples of it
constexpr size_t kMostIdle = size_t(1) << 30;  // bytes kept while nobody uses them

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
    STD_TORCH_CHECK(at != MAP_FAILED, "guide_fast could not get ", bytes, " bytes of memory");
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
    while (idle_bytes_ > kMostIdle) {  // the oldest first
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
  const int64_t rows[] = {c * h * w, h * w, w, 1}, pixels[] = {h * w * c, 1, w * c, c};
  return torch::stable::from_blob(blocks().take(size_t(n * c * h * w) * sizeof(float)), {sizes, 4},
                                  {nhwc ? pixels : rows, 4},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  torch::headeronly::ScalarType::Float, &give_back);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_empty(int n, int c, int h, int w, bool nhwc) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CompositeExplicitAutograd, m) { m.impl("native_empty", TORCH_BOX(&empty)); }
