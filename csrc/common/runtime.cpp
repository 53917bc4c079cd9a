// Threads, instruction sets, the last error: what every operation of the library shares.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include <pthread.h>

#include "guide_fast/status.h"
#include "isa.h"
#include "parallel.h"

namespace {

thread_local char last_error[512] = "";
std::atomic<gf::parallel_hook> hook{nullptr};
std::atomic<int> wanted_threads{0};
thread_local bool inside = false;  // of a range: what it splits further runs in place

// Workers wait for ranges, as long as the process lives; the caller takes ranges too.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }

  int threads() const { return int(workers_.size()) + 1; }

  void run(int64_t begin, int64_t end, int64_t step, gf::range_body body, void* context) {
    std::lock_guard<std::mutex> one_at_a_time(caller_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      next_ = begin, end_ = end, step_ = step, body_ = body, context_ = context;
      busy_ = int(workers_.size());
      ++generation_;
    }
    wake_.notify_all();
    take();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void take() {
    for (;;) {
      const int64_t from = next_.fetch_add(step_);
      if (from >= end_) return;
      body_(from, std::min(from + step_, end_), context_);
    }
  }

  void work() {
    inside = true;
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
      }
      take();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex caller_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  int64_t end_ = 0, step_ = 1;
  gf::range_body body_ = nullptr;
  void* context_ = nullptr;
  uint64_t generation_ = 0;
  int busy_ = 0;
};

std::mutex pool_mutex;
Pool* pool = nullptr;  // never destroyed: at exit its threads may be inside a range

// A forked child has none of the threads, perhaps a locked mutex: it starts over.
void forget_pool() {
  new (&pool_mutex) std::mutex;
  pool = nullptr;
  inside = false;
}

Pool& the_pool() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
  if (pool == nullptr) {
    const int asked = wanted_threads.load();
    pool = new Pool(asked > 0 ? asked : std::max(1, int(std::thread::hardware_concurrency())));
  }
  return *pool;
}

void run_pool(int64_t begin, int64_t end, int64_t grain, gf::range_body body, void* context) {
  Pool& threads = the_pool();
  const int64_t share = (end - begin + 4 * threads.threads() - 1) / (4 * threads.threads());
  inside = true;
  threads.run(begin, end, std::max(grain, share), body, context);
  inside = false;
}

int detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512cd");
  int level = v4 ? 4 : v3 ? 3 : 0;
#else
  int level = 0;
#endif
  if (const char* asked = std::getenv("GUIDE_FAST_ISA")) {
    if (!std::strcmp(asked, "base")) level = 0;
    if (!std::strcmp(asked, "v3")) level = std::min(level, 3);
  }
  return level;
}

}  // namespace

namespace gf {

int instruction_set() {
  static const int level = detect();
  return level;
}

void set_parallel_hook(parallel_hook wanted) { hook = wanted; }

void run_parallel(int64_t begin, int64_t end, int64_t grain, range_body body, void* context) {
  if (end <= begin) return;
  if (inside || end - begin <= grain) return body(begin, end, context);
  if (parallel_hook torch = hook.load()) return torch(begin, end, grain, body, context);
  run_pool(begin, end, grain, body, context);
}

}  // namespace gf

extern "C" {

GF_API const char* gf_last_error(void) { return last_error; }

GF_API gf_status gf_fail(gf_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

GF_API void gf_set_num_threads(int threads) { wanted_threads = threads; }

GF_API void gf_set_parallel_hook(gf_parallel_hook wanted) { hook = wanted; }

GF_API int gf_instruction_set(void) { return gf::instruction_set(); }

GF_API int gf_cuda_built(void) {
#ifdef GF_WITH_CUDA
  return 1;
#else
  return 0;
#endif
}
}
