// CUDA launcher of face_crop: a block makes one output row, first down the columns into shared memory, then along it.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "element.h"
#include "face_crop.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kWidest = 12288;  // columns of an input: 48 kB of shared memory

template <class T>
__global__ void __launch_bounds__(kThreads) forward(const __grid_constant__ gf_face_crop a) {
  extern __shared__ float column_sums[];  // [columns.in]
  const int64_t row = blockIdx.x, channel = blockIdx.y, n = blockIdx.z;
  const float scale = a.scale[channel], offset = a.offset[channel];
  T* y = static_cast<T*>(a.y) + ((n * 3 + channel) * a.rows.out + row) * a.columns.out;
  if (!gf::touched(a.rows, row)) {  // the same for the whole block
    for (int64_t j = threadIdx.x; j < a.columns.out; j += kThreads) gf::store(y + j, offset);
    return;
  }

  // down the columns
  const int64_t pixels = a.rows.in * a.columns.in;
  const int64_t step = a.nhwc ? 3 : 1;
  const T* x = static_cast<const T*>(a.x) + n * 3 * pixels + a.source[channel] * (a.nhwc ? 1 : pixels);
  const int64_t first = a.columns.start[0], last = a.columns.start[a.columns.out - 1] + a.columns.taps;
  const bool ordered = gf::touched(a.columns, 0) && gf::touched(a.columns, a.columns.out - 1);
  const int64_t begin = ordered ? first : 0, end = ordered ? last : a.columns.in;
  for (int64_t j = begin + threadIdx.x; j < end; j += kThreads)
    column_sums[j] =
        gf::resample(a.rows, row, [&](int64_t i) { return gf::load(x[(i * a.columns.in + j) * step]); });
  __syncthreads();

  // along the row
  for (int64_t j = threadIdx.x; j < a.columns.out; j += kThreads)
    gf::store(y + j, gf::resample(a.columns, j, [&](int64_t i) { return column_sums[i]; }) * scale + offset);
}

}  // namespace

extern "C" GF_API gf_status gf_face_crop_cuda(const gf_face_crop* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_face_crop_cuda"); !verdict.run) return verdict.status;
  if (a->columns.in > kWidest)
    return gf_fail(GF_INVALID, "face_crop takes images up to %lld columns on a GPU, not %lld; reduce the image first",
                   static_cast<long long>(kWidest), static_cast<long long>(a->columns.in));
  if (a->batch < 1 || a->batch > 65535)
    return gf_fail(GF_INVALID, "face_crop takes 1 to 65535 images, not %lld", static_cast<long long>(a->batch));
  const dim3 grid(unsigned(a->rows.out), 3, unsigned(a->batch));
  const size_t shared = size_t(a->columns.in) * sizeof(float);
  GF_DISPATCH_DTYPE(a->dtype, T, (forward<T><<<grid, kThreads, shared, cudaStream_t(stream)>>>(*a)));
  return gf::launched("face_crop");
}
