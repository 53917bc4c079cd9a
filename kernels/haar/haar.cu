// CUDA launchers of haar: one memory-bound pass each way, 16-byte vectors of channels in NHWC.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "haar.cuh"
#include "reduce_parts.cuh"
#include "scratch.cuh"
#include "vector_memory.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 2048;  // what fills a device: beyond it a block of the backward pass takes several steps

template <int N>
__device__ __forceinline__ void blocks_of(float (&bands)[4 * N]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
    gf::haar_block(bands[4 * i], bands[4 * i + 1], bands[4 * i + 2], bands[4 * i + 3]);
}

// Output channels a thread takes: 4 N bands are 16 bytes. In NCHW N is 1.
template <class T>
constexpr int kChannels = gf::kVector<T> / 4;

struct Place {
  int64_t n, c, row, column;  // image, first output channel, pixel of x
  bool inside;
};

// Work of NHWC runs over channels first, of NCHW over pixels.
template <int N>
__device__ __forceinline__ Place place_of(int64_t item, int64_t channels, int64_t h, int64_t w, bool nhwc, int64_t n) {
  const int64_t groups = channels / N;
  const int64_t group = nhwc ? item % groups : item / (h * w), pixel = nhwc ? item / groups : item % (h * w);
  return {n, group * N, pixel / w, pixel % w, item < groups * h * w};
}

template <class T, int N>
__device__ __forceinline__ void load_bands(const T* x, const Place& p, int64_t channels, int64_t h, int64_t w,
                                           bool nhwc, float (&bands)[4 * N]) {
  if (nhwc) {
    gf::load_vector(x + ((p.n * h + p.row) * w + p.column) * 4 * channels + 4 * p.c, bands);
  } else {
    const T* at = x + ((p.n * channels + p.c) * 4 * h + p.row) * w + p.column;
#pragma unroll
    for (int b = 0; b < 4 * N; ++b) bands[b] = gf::widen(at[b * h * w]);
  }
}

template <class T, int N>
__device__ __forceinline__ void store_bands(T* x, const Place& p, int64_t channels, int64_t h, int64_t w, bool nhwc,
                                            const float (&bands)[4 * N]) {
  if (nhwc) {
    gf::store_vector(x + ((p.n * h + p.row) * w + p.column) * 4 * channels + 4 * p.c, bands);
  } else {
    T* at = x + ((p.n * channels + p.c) * 4 * h + p.row) * w + p.column;
#pragma unroll
    for (int b = 0; b < 4 * N; ++b) gf::narrow(at + b * h * w, bands[b]);
  }
}

// Address of corner b of the 2x2 block; in NHWC its N channels lie together.
__device__ __forceinline__ int64_t corner(const Place& p, int b, int64_t channels, int64_t h, int64_t w, bool nhwc) {
  const int64_t row = 2 * p.row + b / 2, column = 2 * p.column + b % 2;
  if (nhwc) return ((p.n * 2 * h + row) * 2 * w + column) * channels + p.c;
  return ((p.n * channels + p.c) * 2 * h + row) * 2 * w + column;
}

template <int N, class T>
__device__ __forceinline__ void load_style(const T* style, const Place& p, int64_t channels, float (&values)[4 * N]) {
#pragma unroll
  for (int b = 0; b < 4 * N; ++b) values[b] = style ? gf::widen(style[(p.n * channels + p.c) * 4 + b]) : 1.f;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) forward_kernel(gf_haar a) {
  const Place p = place_of<N>(int64_t(blockIdx.x) * kThreads + threadIdx.x, a.channels, a.h, a.w, a.nhwc, blockIdx.y);
  if (!p.inside) return;
  float bands[4 * N], style[4 * N];
  load_bands<T, N>(static_cast<const T*>(a.x), p, a.channels, a.h, a.w, a.nhwc, bands);
  load_style<N>(static_cast<const T*>(a.style), p, a.channels, style);
#pragma unroll
  for (int b = 0; b < 4 * N; ++b) bands[b] *= style[b];
  blocks_of<N>(bands);
#pragma unroll
  for (int b = 0; b < 4; ++b) {
    float pixel[N];
#pragma unroll
    for (int i = 0; i < N; ++i) pixel[i] = bands[4 * i + b];
    gf::store_vector(static_cast<T*>(a.y) + corner(p, b, a.channels, a.h, a.w, a.nhwc), pixel);
  }
}

// A block takes one group of N channels of one image, its threads run over the pixels from `from` to `to`.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, 3) backward_kernel(gf_haar_backward a, int64_t pixels_per_block, float* parts) {
  __shared__ float sums[4 * N][kThreads / 32];
  const int64_t size = a.h * a.w, from = blockIdx.x * pixels_per_block;
  const int64_t to = from + pixels_per_block < size ? from + pixels_per_block : size;
  // in NHWC neighbours of a warp take neighbouring groups, else the vectors of a pixel would come one by one
  const int groups = int(a.channels) / N;
  const int lanes = a.nhwc ? (groups % 8 == 0 ? 8 : groups % 4 == 0 ? 4 : groups % 2 == 0 ? 2 : 1) : 1;
  const int64_t group = int64_t(blockIdx.y) * lanes + threadIdx.x % lanes;
  Place p{int64_t(blockIdx.z), group * N, 0, 0, true};
  float style[4 * N], total[4 * N] = {};
  load_style<N>(static_cast<const T*>(a.style), p, a.channels, style);
  for (int64_t pixel = from + threadIdx.x / lanes; pixel < to; pixel += kThreads / lanes) {
    p.row = pixel / a.w, p.column = pixel % a.w;
    float bands[4 * N];
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      float values[N];
      gf::load_vector(static_cast<const T*>(a.gy) + corner(p, b, a.channels, a.h, a.w, a.nhwc), values);
#pragma unroll
      for (int i = 0; i < N; ++i) bands[4 * i + b] = values[i];
    }
    blocks_of<N>(bands);
    if (parts) {
      float x[4 * N];
      load_bands<T, N>(static_cast<const T*>(a.x), p, a.channels, a.h, a.w, a.nhwc, x);
#pragma unroll
      for (int b = 0; b < 4 * N; ++b) total[b] += bands[b] * x[b];
    }
    if (a.gx) {
#pragma unroll
      for (int b = 0; b < 4 * N; ++b) bands[b] *= style[b];
      store_bands<T, N>(static_cast<T*>(a.gx), p, a.channels, a.h, a.w, a.nhwc, bands);
    }
  }
  if (!parts) return;
  // lanes of one group are `lanes` apart in a warp: add those, then the warps in order
#pragma unroll
  for (int b = 0; b < 4 * N; ++b)
    for (int step = 16; step >= lanes; step /= 2) total[b] += __shfl_xor_sync(0xffffffffu, total[b], step);
  for (int lane = 0; lane < lanes; ++lane) {
    __syncthreads();
    if (int(threadIdx.x) % 32 == lane)
#pragma unroll
      for (int b = 0; b < 4 * N; ++b) sums[b][threadIdx.x / 32] = total[b];
    __syncthreads();
    if (threadIdx.x < 4 * N) {
      float sum = 0;
      for (int warp = 0; warp < kThreads / 32; ++warp) sum += sums[threadIdx.x][warp];
      const int64_t channel = (int64_t(blockIdx.y) * lanes + lane) * N * 4 + threadIdx.x;
      parts[(p.n * gridDim.x + blockIdx.x) * 4 * a.channels + channel] = sum;
    }
  }
}

template <class T, int N>
void forward(const gf_haar& a, cudaStream_t stream) {
  const int64_t items = a.channels / N * a.h * a.w;
  forward_kernel<T, N><<<dim3((items + kThreads - 1) / kThreads, a.n), kThreads, 0, stream>>>(a);
}

template <class T, int N>
gf_status backward(const gf_haar_backward& a, cudaStream_t stream) {
  const int groups = int(a.channels) / N;
  const int lanes = a.nhwc ? (groups % 8 == 0 ? 8 : groups % 4 == 0 ? 4 : groups % 2 == 0 ? 2 : 1) : 1;
  const int64_t size = a.h * a.w, step = kThreads / lanes, columns = groups / lanes;
  int64_t blocks = (size + step - 1) / step;
  if (a.gstyle && blocks * columns * a.n > kBlocks) blocks = (kBlocks + columns * a.n - 1) / (columns * a.n);
  const int64_t pixels = ((size + blocks - 1) / blocks + step - 1) / step * step;
  blocks = (size + pixels - 1) / pixels;
  const bool direct = blocks == 1;
  gf::Scratch scratch(a.gstyle && !direct ? a.n * blocks * 4 * a.channels * sizeof(float) : 0, stream);
  if (scratch.failed()) return gf_fail(GF_CUDA_ERROR, "haar_backward finds no memory for its sums");
  float* parts = !a.gstyle ? nullptr : direct ? a.gstyle : scratch.as<float>();
  backward_kernel<T, N><<<dim3(blocks, columns, a.n), kThreads, 0, stream>>>(a, pixels, parts);
  if (a.gstyle && !direct) gf::reduce_parts(parts, a.gstyle, a.n, blocks, 4 * a.channels, stream);
  return GF_OK;
}

template <class Arguments>
bool vectors(const Arguments& a, int channels, const void* first, const void* second) {
  return a.nhwc && a.channels % channels == 0 && gf::aligned(first) && gf::aligned(second);
}

}  // namespace

extern "C" GF_API gf_status gf_haar_cuda(const gf_haar* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_haar_cuda"); !verdict.run) return verdict.status;
  if (a->n * a->channels * a->h * a->w == 0) return GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, {
    if (vectors(*a, kChannels<T>, a->x, a->y))
      forward<T, kChannels<T>>(*a, cudaStream_t(stream));
    else
      forward<T, 1>(*a, cudaStream_t(stream));
  });
  return gf::launched("haar");
}

extern "C" GF_API gf_status gf_haar_backward_cuda(const gf_haar_backward* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_haar_backward_cuda"); !verdict.run) return verdict.status;
  if (a->n * a->channels * a->h * a->w == 0) return GF_OK;
  gf_status status = GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, {
    if (vectors(*a, kChannels<T>, a->gx ? a->gx : a->gy, a->x ? a->x : a->gy))
      status = backward<T, kChannels<T>>(*a, cudaStream_t(stream));
    else
      status = backward<T, 1>(*a, cudaStream_t(stream));
  });
  return status == GF_OK ? gf::launched("haar_backward") : status;
}
