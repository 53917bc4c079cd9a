// CUDA launchers of feature_distance: one launch for all taps; no scaled feature map is written.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "element.h"
#include "feature_distance.cuh"

namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarp * kWarps;

__device__ float group_sum(float x, int group) {
  for (int lane = group / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

// How a block's threads share a pixel's channels, so that neighbouring threads read neighbouring addresses.
template <bool Nhwc>
struct Share;

// NHWC: `group` lanes of a warp share a pixel
template <>
struct Share<true> {
  int group, pixels, pixel, channel, step;

  __device__ explicit Share(int64_t channels, float*) {
    for (group = kWarp; group / 2 >= channels; group /= 2) {
    }
    pixels = kThreads / group;
    pixel = threadIdx.x / group;
    channel = threadIdx.x % group;
    step = group;
  }
  __device__ float sum(float x) const { return group_sum(x, group); }
};

// NCHW: a warp takes 32 pixels, the warps share their channels
template <>
struct Share<false> {
  int pixels, pixel, channel, step;
  float* shared;  // [kWarps, kWarp]

  __device__ explicit Share(int64_t, float* scratch)
      : pixels(kWarp), pixel(threadIdx.x % kWarp), channel(threadIdx.x / kWarp), step(kWarps), shared(scratch) {}
  __device__ float sum(float x) const {
    __syncthreads();  // the sum before this one has been read
    shared[threadIdx.x] = x;
    __syncthreads();
    float total = 0.f;
    for (int warp = 0; warp < kWarps; ++warp) total += shared[warp * kWarp + pixel];
    return total;
  }
};

// One image's part of a tap.
template <class T>
struct Map {
  const T *a, *b;
  const float* weight;
  int64_t offset, channels, channel_stride, pixel_stride;

  __device__ Map(const gf_feature_tap& tap, int64_t n)
      : weight(tap.weight),
        offset(n * tap.channels * tap.pixels),
        channels(tap.channels),
        channel_stride(tap.nhwc ? 1 : tap.pixels),
        pixel_stride(tap.nhwc ? tap.channels : 1) {
    a = static_cast<const T*>(tap.a) + offset;
    b = static_cast<const T*>(tap.b) + (tap.shared ? 0 : offset);
  }
  __device__ int64_t at(int64_t pixel, int64_t channel) const {
    return pixel * pixel_stride + channel * channel_stride;
  }
  __device__ float w(int64_t channel) const { return weight ? weight[channel] : 1.f; }
  __device__ float term(int64_t i, int64_t channel, float ra, float q) const {
    const float e = gf::feature_difference(gf::load(a[i]), gf::load(b[i]), ra, q);
    return w(channel) * e * e;
  }
};

template <class T, bool Nhwc>
__device__ void inverses(const Map<T>& map, const Share<Nhwc>& share, int64_t pixel, bool inside, int normalised,
                         float eps, float& ra, float& rb, float& q) {
  float aa = 0.f, bb = 0.f;
  if (inside)
    for (int64_t c = share.channel; c < map.channels; c += share.step) {
      const float x = gf::load(map.a[map.at(pixel, c)]), y = gf::load(map.b[map.at(pixel, c)]);
      aa += x * x;
      bb += y * y;
    }
  ra = gf::feature_inverse(share.sum(aa), eps);
  rb = normalised ? 1.f : gf::feature_inverse(share.sum(bb), eps);
  q = rb / ra;
}

template <class T, bool Nhwc>
__device__ void forward_block(const gf_feature_distance& args, const gf::feature_block& block, float* scratch) {
  const gf_feature_tap& tap = args.tap[block.tap];
  const Map<T> map(tap, blockIdx.y);
  const Share<Nhwc> share(tap.channels, scratch);
  float distance = 0.f;
  for (int64_t first = block.begin; first < block.end; first += share.pixels) {
    const int64_t pixel = first + share.pixel;
    const bool inside = pixel < block.end;
    float ra, rb, q;
    inverses(map, share, pixel, inside, args.normalised, args.eps, ra, rb, q);
    if (inside)
      for (int64_t c = share.channel; c < map.channels; c += share.step)
        distance += map.term(map.at(pixel, c), c, ra, q);
  }
  distance = group_sum(distance, kWarp);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = distance;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    distance = group_sum(threadIdx.x < kWarps ? scratch[threadIdx.x] : 0.f, kWarp);
    if (threadIdx.x == 0)
      args.partial[blockIdx.y * int64_t(gridDim.x) + blockIdx.x] = distance * tap.scale / float(tap.pixels);
  }
}

template <class T, bool Nhwc>
__device__ void backward_block(const gf_feature_distance& args, const gf::feature_block& block, float* scratch) {
  const gf_feature_tap& tap = args.tap[block.tap];
  const Map<T> map(tap, blockIdx.y);
  const Share<Nhwc> share(tap.channels, scratch);
  T* ga = static_cast<T*>(tap.ga);
  T* gb = static_cast<T*>(tap.gb);
  const float g = 2.f * args.gout[blockIdx.y] * tap.scale / float(tap.pixels);
  for (int64_t first = block.begin; first < block.end; first += share.pixels) {
    const int64_t pixel = first + share.pixel;
    const bool inside = pixel < block.end;
    float ra, rb, q;
    inverses(map, share, pixel, inside, args.normalised, args.eps, ra, rb, q);

    // what of the slope points along the features
    float along_a = 0.f, along_b = 0.f;
    if (inside)
      for (int64_t c = share.channel; c < map.channels; c += share.step) {
        const int64_t i = map.at(pixel, c);
        const float e = map.w(c) * gf::feature_difference(gf::load(map.a[i]), gf::load(map.b[i]), ra, q);
        along_a += gf::load(map.a[i]) * ra * e;
        along_b -= gf::load(map.b[i]) * rb * e;
      }
    along_a = share.sum(along_a);
    along_b = args.normalised || !gb ? 0.f : share.sum(along_b);

    // gradients
    if (inside)
      for (int64_t c = share.channel; c < map.channels; c += share.step) {
        const int64_t i = map.at(pixel, c);
        const float a = gf::load(map.a[i]), b = gf::load(map.b[i]);
        const float e = map.w(c) * gf::feature_difference(a, b, ra, q);
        if (ga) gf::store(ga + map.offset + i, gf::feature_slope(g, ra, e, a * ra, along_a));
        if (gb) gf::store(gb + map.offset + i, gf::feature_slope(g, rb, -e, b * rb, along_b));
      }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(const __grid_constant__ gf_feature_distance args) {
  __shared__ float scratch[kThreads];
  const gf::feature_block block = gf::feature_block_at(args, blockIdx.x);
  if (args.tap[block.tap].nhwc)
    forward_block<T, true>(args, block, scratch);
  else
    forward_block<T, false>(args, block, scratch);
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward(const __grid_constant__ gf_feature_distance args) {
  __shared__ float scratch[kThreads];
  const gf::feature_block block = gf::feature_block_at(args, blockIdx.x);
  if (args.tap[block.tap].nhwc)
    backward_block<T, true>(args, block, scratch);
  else
    backward_block<T, false>(args, block, scratch);
}

// Sums the blocks of an image in a fixed order: no atomics.
__global__ void total(const float* partial, float* out, int64_t blocks) {
  float sum = 0.f;
  for (int64_t i = threadIdx.x; i < blocks; i += kWarp) sum += partial[blockIdx.x * blocks + i];
  sum = group_sum(sum, kWarp);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

gf_status refuses(const gf_feature_distance& a) {
  if (a.taps < 1 || a.taps > GF_FEATURE_TAPS)
    return gf_fail(GF_INVALID, "feature_distance takes 1 to %d taps, not %d", int(GF_FEATURE_TAPS), a.taps);
  if (a.batch < 1 || a.batch > 65535)
    return gf_fail(GF_INVALID, "feature_distance takes 1 to 65535 images, not %lld", static_cast<long long>(a.batch));
  return GF_OK;
}

}  // namespace

extern "C" GF_API gf_status gf_feature_distance_cuda(const gf_feature_distance* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_feature_distance_cuda"); !verdict.run) return verdict.status;
  if (const gf_status status = refuses(*a)) return status;
  const int64_t blocks = gf::feature_blocks(*a);
  const dim3 grid(unsigned(blocks), unsigned(a->batch));
  GF_DISPATCH_DTYPE(a->dtype, T, (forward<T><<<grid, kThreads, 0, cudaStream_t(stream)>>>(*a)));
  if (const gf_status status = gf::launched("feature_distance")) return status;
  total<<<unsigned(a->batch), kWarp, 0, cudaStream_t(stream)>>>(a->partial, a->out, blocks);
  return gf::launched("feature_distance");
}

extern "C" GF_API gf_status gf_feature_distance_backward_cuda(const gf_feature_distance* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_feature_distance_backward_cuda"); !verdict.run) return verdict.status;
  if (const gf_status status = refuses(*a)) return status;
  const dim3 grid(unsigned(gf::feature_blocks(*a)), unsigned(a->batch));
  GF_DISPATCH_DTYPE(a->dtype, T, (backward<T><<<grid, kThreads, 0, cudaStream_t(stream)>>>(*a)));
  return gf::launched("feature_distance_backward");
}
