// CUDA launcher of identity_loss: a warp takes a pair; the embeddings of a pair stay in the first-level cache.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "element.h"
#include "identity_loss.cuh"

namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;

__device__ float warp_sum(float x) {
  for (int lane = kWarp / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

// Loss of one pair, the same in every lane; writes the gradients.
template <class T>
__device__ float pair(const gf_identity_loss& args, int64_t row, int lane) {
  const T* a = static_cast<const T*>(args.a) + row * args.width;
  const T* b = static_cast<const T*>(args.b) + row * args.width;

  // lengths
  float aa = 0.f, bb = 0.f;
  for (int64_t i = lane; i < args.width; i += kWarp) {
    const float x = gf::load(a[i]), y = gf::load(b[i]);
    aa += x * x;
    bb += y * y;
  }
  aa = warp_sum(aa), bb = warp_sum(bb);
  const gf::identity_lengths l = gf::identity_scale(aa, bb, args.normalise != 0, args.eps);

  // difference
  float ee = 0.f, ue = 0.f, ve = 0.f;
  for (int64_t i = lane; i < args.width; i += kWarp) {
    const float x = gf::load(a[i]), y = gf::load(b[i]), e = gf::identity_difference(l, x, y);
    ee += e * e;
    ue += x * l.ra * e;
    ve += y * l.rb * e;
  }
  ee = warp_sum(ee), ue = warp_sum(ue), ve = warp_sum(ve);

  // gradients
  if (args.da || args.db) {
    const gf::identity_slope s = gf::identity_pair_slope(args.kind, l, ee, ue, ve);
    for (int64_t i = lane; i < args.width; i += kWarp) {
      const float x = gf::load(a[i]), y = gf::load(b[i]), e = gf::identity_difference(l, x, y);
      if (args.da) args.da[row * args.width + i] = args.scale * l.ra * (s.k * e - s.pa * (x * l.ra));
      if (args.db) args.db[row * args.width + i] = -args.scale * l.rb * (s.k * e + s.pb * (y * l.rb));
    }
  }
  return args.scale * gf::identity_pair_loss(args.kind, l, aa, bb, ee);
}

template <class T>
__global__ void rows(gf_identity_loss args) {
  const int lane = threadIdx.x % kWarp;
  const int64_t stride = int64_t(gridDim.x) * kWarps;
  for (int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp; row < args.rows; row += stride) {
    const float loss = pair<T>(args, row, lane);
    if (lane == 0) args.loss[row] = loss;
  }
}

// One block for all rows: the sum needs no second launch, no atomics, and always comes in the same order.
template <class T>
__global__ void total(gf_identity_loss args) {
  __shared__ float of_warp[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  float sum = 0.f, lost = 0.f;  // compensated: the error does not grow with the number of pairs
  for (int64_t row = warp; row < args.rows; row += warps) {
    const float term = pair<T>(args, row, lane) - lost, next = sum + term;
    lost = (next - sum) - term;
    sum = next;
  }
  if (lane == 0) of_warp[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = warp_sum(lane < warps ? of_warp[lane] : 0.f);
    if (lane == 0) *args.loss = sum;
  }
}

}  // namespace

extern "C" GF_API gf_status gf_identity_loss_cuda(const gf_identity_loss* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_identity_loss_cuda"); !verdict.run) return verdict.status;
  if (a->rows == 0 || a->width == 0) return gf_fail(GF_INVALID, "identity_loss has no embeddings to compare");
  if (a->reduce) {
    const int threads = int(a->rows < kWarp ? a->rows : kWarp) * kWarp;
    GF_DISPATCH_DTYPE(a->dtype, T, (total<T><<<1, threads, 0, cudaStream_t(stream)>>>(*a)));
  } else {
    const int blocks = gf::blocks_for(a->rows, kWarps);
    GF_DISPATCH_DTYPE(a->dtype, T, (rows<T><<<blocks, kWarps * kWarp, 0, cudaStream_t(stream)>>>(*a)));
  }
  return gf::launched("identity_loss");
}
