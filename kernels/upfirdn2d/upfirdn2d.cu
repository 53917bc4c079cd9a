// CUDA launchers of upfirdn2d: polyphase, memory-bound. NCHW goes through tiles in shared memory, NHWC through 16-byte
// vectors of channels.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "upfirdn2d.cuh"
#include "vector_memory.cuh"

namespace {

constexpr int kTile = 32;     // outputs of a block, each way
constexpr int kRows = 8;      // threads of a block along y
constexpr int kThreads = kTile * kRows;
constexpr int kSharedBytes = 48 << 10;

// Up- and down-sampling of both axes, filter taps that meet pixels; 0: known at run time only.
template <int Up, int Down, int Taps>
struct Known {
  static constexpr int up = Up, down = Down, taps = Taps;
};

template <int Fixed>
__device__ __forceinline__ int either(int runtime) {
  return Fixed ? Fixed : runtime;
}

// input pixels that `outputs` in a row can read
inline int window(int outputs, int up, int down, int taps) { return ((outputs - 1) * down + taps - 1) / up + 2; }

struct Tiling {
  int across, down;      // tiles of a plane
  int wide, high;        // input pixels of a tile
  int64_t blocks;
};

template <class T, class K>
__global__ void __launch_bounds__(kThreads) tiles_kernel(gf_upfirdn2d a, Tiling t) {
  extern __shared__ float shared[];
  float* filter = shared + t.wide * t.high;
  const int up_x = either<K::up>(a.up_x), up_y = either<K::up>(a.up_y);
  const int down_x = either<K::down>(a.down_x), down_y = either<K::down>(a.down_y);
  for (int i = threadIdx.y * kTile + threadIdx.x; i < a.filter_h * a.filter_w; i += kThreads) filter[i] = a.filter[i];
  for (int64_t block = blockIdx.x; block < t.blocks; block += gridDim.x) {
    const int tile = int(block % (t.across * t.down));
    const int64_t plane = block / (t.across * t.down);
    const int left = tile % t.across * kTile, top = tile / t.across * kTile;
    const int from_x = gf::first_tap(left * down_x - a.left, up_x).pixel;
    const int from_y = gf::first_tap(top * down_y - a.top, up_y).pixel;
    const T* x = static_cast<const T*>(a.x) + plane * a.in_h * a.in_w;
    __syncthreads();  // the tile before is used up, the filter is there
    for (int row = threadIdx.y; row < t.high; row += kRows)
      for (int column = threadIdx.x; column < t.wide; column += kTile) {
        const int64_t iy = from_y + row, ix = from_x + column;
        const bool inside = iy >= 0 && iy < a.in_h && ix >= 0 && ix < a.in_w;
        shared[row * t.wide + column] = inside ? gf::widen(x[iy * a.in_w + ix]) : 0.f;
      }
    __syncthreads();
    const int ox = left + threadIdx.x;
    const gf::first_tap_of across = gf::first_tap(ox * down_x - a.left, up_x);
    T* y = static_cast<T*>(a.y) + plane * a.out_h * a.out_w + ox;
#pragma unroll
    for (int part = 0; part < kTile / kRows; ++part) {
      const int oy = top + part * kRows + threadIdx.y;
      if (ox >= a.out_w || oy >= a.out_h) continue;
      const gf::first_tap_of vertical = gf::first_tap(oy * down_y - a.top, up_y);
      const float* pixel = shared + (vertical.pixel - from_y) * t.wide + across.pixel - from_x;
      float sum = 0;
      if (K::taps) {
        const float* tap = filter + vertical.tap * (K::taps * K::up) + across.tap;
#pragma unroll
        for (int i = 0; i < K::taps; ++i)
#pragma unroll
          for (int j = 0; j < K::taps; ++j)
            sum += tap[i * K::up * (K::taps * K::up) + j * K::up] * pixel[i * t.wide + j];
      } else {
        for (int ky = vertical.tap, i = 0; ky < a.filter_h; ky += up_y, ++i)
          for (int kx = across.tap, j = 0; kx < a.filter_w; kx += up_x, ++j)
            sum += filter[ky * a.filter_w + kx] * pixel[i * t.wide + j];
      }
      gf::narrow(y + int64_t(oy) * a.out_w, sum);
    }
  }
}

// N channels of one pixel to a thread; with NCHW (strides of a plane, N = 1) it is the way for filters of any size
template <class T, int N>
__global__ void __launch_bounds__(kThreads, 4) pixels_kernel(gf_upfirdn2d a) {
  const int lanes = a.nhwc ? int(a.c) / N : 1;  // vectors of a pixel
  const int64_t images = a.nhwc ? a.n : a.n * a.c;
  const int per_row = int(a.out_w) * lanes, blocks = (per_row + kThreads - 1) / kThreads;
  const int64_t total = images * a.out_h * blocks, pixel_floats = int64_t(lanes) * N;
  for (int64_t block = blockIdx.x; block < total; block += gridDim.x) {
    const int64_t row = block / blocks;  // of all images together
    const int item = int(block % blocks) * kThreads + threadIdx.x;
    if (item >= per_row) continue;
    const int ox = item / lanes, c = item % lanes * N, oy = int(row % a.out_h);
    gf::first_tap_of vertical = gf::first_tap(oy * a.down_y - a.top, a.up_y);
    gf::first_tap_of across = gf::first_tap(ox * a.down_x - a.left, a.up_x);
    const int high = gf::taps_inside(vertical, a.up_y, a.filter_h, int(a.in_h));
    const int wide = gf::taps_inside(across, a.up_x, a.filter_w, int(a.in_w));
    const T* x = static_cast<const T*>(a.x) + c +
                 ((row / a.out_h * a.in_h + vertical.pixel) * a.in_w + across.pixel) * pixel_floats;
    float sums[N] = {};
    for (int i = 0; i < high; ++i)
      for (int j = 0; j < wide; ++j) {
        const float tap = __ldg(a.filter + (vertical.tap + i * a.up_y) * a.filter_w + across.tap + j * a.up_x);
        float values[N];
        gf::load_vector(x + (i * a.in_w + j) * pixel_floats, values);
#pragma unroll
        for (int v = 0; v < N; ++v) sums[v] += tap * values[v];
      }
    gf::store_vector(static_cast<T*>(a.y) + (row * a.out_w + ox) * pixel_floats + c, sums);
  }
}

int grid_of(int64_t blocks) { return int(blocks < INT32_MAX ? blocks : INT32_MAX); }

template <class T>
void pixels(const gf_upfirdn2d& a, cudaStream_t stream) {
  constexpr int N = gf::kVector<T>;
  const bool vectors = a.nhwc && a.c % N == 0 && gf::aligned(a.x) && gf::aligned(a.y);
  const int64_t per_row = a.out_w * (a.nhwc ? a.c / (vectors ? N : 1) : 1);
  const int grid = grid_of((a.nhwc ? a.n : a.n * a.c) * a.out_h * ((per_row + kThreads - 1) / kThreads));
  if (vectors)
    pixels_kernel<T, N><<<grid, kThreads, 0, stream>>>(a);
  else
    pixels_kernel<T, 1><<<grid, kThreads, 0, stream>>>(a);
}

template <class T>
void planes(const gf_upfirdn2d& a, cudaStream_t stream) {
  Tiling t;
  t.across = int((a.out_w + kTile - 1) / kTile), t.down = int((a.out_h + kTile - 1) / kTile);
  t.wide = window(kTile, a.up_x, a.down_x, a.filter_w), t.high = window(kTile, a.up_y, a.down_y, a.filter_h);
  t.blocks = a.n * a.c * t.across * t.down;
  const int64_t bytes = (int64_t(t.wide) * t.high + int64_t(a.filter_h) * a.filter_w) * sizeof(float);
  if (bytes > kSharedBytes) return pixels<T>(a, stream);
  const dim3 threads(kTile, kRows);
  const int grid = grid_of(t.blocks);
  const bool square = a.up_x == a.up_y && a.down_x == a.down_y && a.filter_h == 4 && a.filter_w == 4;
  if (square && a.up_x == 1 && a.down_x == 1)
    tiles_kernel<T, Known<1, 1, 4>><<<grid, threads, bytes, stream>>>(a, t);
  else if (square && a.up_x == 2 && a.down_x == 1)
    tiles_kernel<T, Known<2, 1, 2>><<<grid, threads, bytes, stream>>>(a, t);
  else if (square && a.up_x == 1 && a.down_x == 2)
    tiles_kernel<T, Known<1, 2, 4>><<<grid, threads, bytes, stream>>>(a, t);
  else
    tiles_kernel<T, Known<0, 0, 0>><<<grid, threads, bytes, stream>>>(a, t);
}

}  // namespace

extern "C" GF_API gf_status gf_upfirdn2d_cuda(const gf_upfirdn2d* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_upfirdn2d_cuda"); !verdict.run) return verdict.status;
  if (const gf_status status = gf::check_upfirdn2d(*a); status != GF_OK) return status;
  if (a->n * a->c == 0) return GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, a->nhwc ? pixels<T>(*a, cudaStream_t(stream)) : planes<T>(*a, cudaStream_t(stream)));
  return gf::launched("upfirdn2d");
}
