// Device memory that a launcher needs for itself, ordered on its stream.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace gf {

class Scratch {
 public:
  Scratch(size_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes && cudaMallocAsync(&at_, bytes, stream) != cudaSuccess) at_ = nullptr, failed_ = true;
  }
  ~Scratch() {
    if (at_) cudaFreeAsync(at_, stream_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const { return static_cast<T*>(at_); }
  bool failed() const { return failed_; }

 private:
  void* at_ = nullptr;
  cudaStream_t stream_;
  bool failed_ = false;
};

}  // namespace gf
