// CUDA launcher of separable_conv2d, backward: two pointwise products, the depthwise pass, sums over pixels.
#include <cuda_runtime.h>

#include "guide_fast/haar.h"
#include "reduce_parts.cuh"
#include "separable_conv2d_product.cuh"

namespace gf {
namespace {

constexpr int64_t kBlocks = 512;  // what fills a device: how far sums over pixels are cut into parts
constexpr int kThreads = 256, kSums = 10;  // nine taps, the style

__device__ __forceinline__ float gradient(float gy, float y, const gf_separable_conv2d_backward& a) {
  return gy * activate_slope(y, a.activation, a.slope, a.gain, a.clamp);
}

// g = gy dy/dx, where no product makes it on the way
template <class T>
__global__ void __launch_bounds__(kThreads) activation_kernel(gf_separable_conv2d_backward a, T* g) {
  const int64_t total = a.n * a.outputs * a.h * a.w, stride = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < total; i += stride)
    narrow(g + i, gradient(widen(static_cast<const T*>(a.gy)[i]), widen(static_cast<const T*>(a.y)[i]), a));
}

// t = P^T g; the first block of channels also stores g
template <class T>
struct Between {
  gf_separable_conv2d_backward a;
  T* g;
  T* t;
  int64_t n, first_pixel, first_input, pixels;

  __device__ void begin() {
    n = blockIdx.z, first_pixel = int64_t(blockIdx.x) * kBlock, first_input = int64_t(blockIdx.y) * kBlock;
    pixels = a.h * a.w;
  }
  __device__ int64_t depth() const { return a.outputs; }
  __device__ void taps(float*, int64_t) const {}

  __device__ void left(T* to, const float*, int64_t k) const {
    const int64_t image = n * pixels * a.outputs;
    for (int i = threadIdx.x; i < kBlock * kDepth; i += kProductThreads) {
      const int row = a.nhwc ? i / kDepth : i % kBlock, column = a.nhwc ? i % kDepth : i / kBlock;
      const int64_t p = first_pixel + row, o = k + column;
      float value = 0;
      if (p < pixels && o < a.outputs) {
        const int64_t at = image + (a.nhwc ? p * a.outputs + o : o * pixels + p);
        value = gradient(widen(static_cast<const T*>(a.gy)[at]), widen(static_cast<const T*>(a.y)[at]), a);
        if (g && blockIdx.y == 0) narrow(g + at, value);
      }
      narrow(to + row * Product<T>::kStride + column, value);
    }
  }
  __device__ void right(T* to, const float*, int64_t k) const {
    const T* pointwise = static_cast<const T*>(a.pointwise);
    for (int i = threadIdx.x; i < kBlock * kDepth; i += kProductThreads) {
      const int64_t c = first_input + i % kBlock, o = k + i / kBlock;
      const float w = o < a.outputs && c < a.inputs ? widen(pointwise[o * a.inputs + c]) : 0.f;
      narrow(to + i % kBlock * Product<T>::kStride + i / kBlock, w);
    }
  }
  __device__ void finish(const float* sums) const {
    for (int i = threadIdx.x; i < kBlock * kBlock; i += kProductThreads) {
      const int row = a.nhwc ? i / kBlock : i % kBlock, column = a.nhwc ? i % kBlock : i / kBlock;
      const int64_t p = first_pixel + row, c = first_input + column;
      if (p >= pixels || c >= a.inputs) continue;
      narrow(t + n * pixels * a.inputs + (a.nhwc ? p * a.inputs + c : c * pixels + p), sums[row * kResult + column]);
    }
  }
};

// gpointwise = sum over pixels of g v^T: `share` pixels of an image to a block, parts [n * shares, O, I]
template <class T, int N>
struct Weight {
  gf_separable_conv2d_backward a;
  Convolved<T, N> image;
  const T* g;
  float* parts;
  int64_t share, shares;
  int64_t n, from, to_pixel, first_output, first_input, pixels;

  __device__ void begin() {
    n = blockIdx.z / shares, from = blockIdx.z % shares * share;
    first_output = int64_t(blockIdx.x) * kBlock, first_input = int64_t(blockIdx.y) * kBlock;
    pixels = a.h * a.w;
    to_pixel = from + share < pixels ? from + share : pixels;
    image.x += n * pixels * a.inputs;
    image.style += n * a.inputs;
  }
  __device__ int64_t depth() const { return to_pixel - from; }
  __device__ void taps(float* taps, int64_t k) const {
    if (k == 0) image.taps(taps, first_input, kBlock);
  }
  __device__ void left(T* to, const float*, int64_t k) const {
    for (int i = threadIdx.x; i < kBlock * kDepth; i += kProductThreads) {
      const int row = a.nhwc ? i % kBlock : i / kDepth, column = a.nhwc ? i / kBlock : i % kDepth;
      const int64_t o = first_output + row, p = from + k + column;
      const bool inside = o < a.outputs && p < to_pixel;
      const int64_t at = n * pixels * a.outputs + (a.nhwc ? p * a.outputs + o : o * pixels + p);
      narrow(to + row * Product<T>::kStride + column, inside ? widen(g[at]) : 0.f);
    }
  }
  __device__ void right(T* to, const float* taps, int64_t k) const {
    for (int i = threadIdx.x; i < kBlock * kDepth / N; i += kProductThreads) {
      const int pixel = a.nhwc ? i / (kBlock / N) : i % kDepth, c = (a.nhwc ? i % (kBlock / N) : i / kDepth) * N;
      float v[N];
      image.value(taps, from + k + pixel, first_input + c, c, v);
#pragma unroll
      for (int j = 0; j < N; ++j) narrow(to + (c + j) * Product<T>::kStride + pixel, v[j]);
    }
  }
  __device__ void finish(const float* sums) const {
    for (int i = threadIdx.x; i < kBlock * kBlock; i += kProductThreads) {
      const int64_t o = first_output + i / kBlock, c = first_input + i % kBlock;
      if (o < a.outputs && c < a.inputs)
        parts[(blockIdx.z * a.outputs + o) * a.inputs + c] = sums[i / kBlock * kResult + i % kBlock];
    }
  }
};

// gx = style r with r = depthwise^T t, the sums of r x, of style t x; parts [n, shares, 10, I], or null for no sums
template <class T>
__global__ void __launch_bounds__(kThreads, 3) depthwise_kernel(gf_separable_conv2d_backward a, const T* t, float* parts,
                                                                int64_t share) {
  __shared__ float shared[kThreads];
  const int lanes = a.nhwc ? 32 : 1;  // channels of a block
  const int64_t pixels = a.h * a.w, n = blockIdx.z, c = int64_t(blockIdx.y) * lanes + threadIdx.x % lanes;
  const int64_t from = blockIdx.x * share, to = from + share < pixels ? from + share : pixels;
  const Strides at = a.nhwc ? Strides{a.inputs, 1} : Strides{1, pixels};
  const int64_t image = n * pixels * a.inputs + c * at.channel;
  const bool known = c < a.inputs;
  const T* depthwise = static_cast<const T*>(a.depthwise);
  const float style = known ? widen(static_cast<const T*>(a.style)[n * a.inputs + c]) : 0.f;
  float taps[9], sums[kSums] = {};
#pragma unroll
  for (int k = 0; k < 9; ++k) taps[k] = depthwise && known ? widen(depthwise[c * 9 + k]) : k == 4 ? 1.f : 0.f;
  for (int64_t p = from + threadIdx.x / lanes; known && p < to; p += kThreads / lanes) {
    const int row = int(p / a.w), column = int(p % a.w);
    const int64_t here = image + p * at.pixel;
    const float x = parts ? widen(static_cast<const T*>(a.x)[here]) : 0.f;
    float r = 0;
#pragma unroll
    for (int k = 0; k < 9; ++k) {
      // x at p met tap k where the window's centre lay the other way round
      if ((k != 4 && !depthwise) || !window_inside(row, column, 8 - k, int(a.h), int(a.w))) continue;
      const float value = widen(t[here + window_offset(8 - k, int(a.w)) * at.pixel]);
      r += taps[k] * value;
      sums[k] += value * x;
    }
    sums[9] += r * x;
    if (a.gx) narrow(static_cast<T*>(a.gx) + here, style * r);
  }
  if (!parts) return;
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    __syncthreads();
    shared[threadIdx.x] = k < 9 ? style * sums[k] : sums[k];
    __syncthreads();
    if (int(threadIdx.x) < lanes && known) {
      float sum = 0;
      for (int i = threadIdx.x; i < kThreads; i += lanes) sum += shared[i];
      parts[((n * gridDim.x + blockIdx.x) * kSums + k) * a.inputs + c] = sum;
    }
  }
}

// parts [n, shares, 10, I] -> gdepthwise [I, 9], gstyle [n, I], whichever is wanted
__global__ void __launch_bounds__(kThreads) collect_kernel(const float* parts, gf_separable_conv2d_backward a,
                                                           int64_t shares) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (a.gdepthwise && i < 9 * a.inputs) {
    float sum = 0;
    for (int64_t part = 0; part < a.n * shares; ++part) sum += parts[(part * kSums + i % 9) * a.inputs + i / 9];
    a.gdepthwise[i] = sum;
  }
  if (a.gstyle && i < a.n * a.inputs) {
    float sum = 0;
    for (int64_t part = i / a.inputs * shares; part < (i / a.inputs + 1) * shares; ++part)
      sum += parts[(part * kSums + 9) * a.inputs + i % a.inputs];
    a.gstyle[i] = sum;
  }
}

// sum of g over the channels: a thread takes a pixel of one map of noise
template <class T>
__global__ void __launch_bounds__(kThreads) noise_kernel(gf_separable_conv2d_backward a, const T* g) {
  const int64_t pixels = a.h * a.w, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.noise_n * pixels) return;
  const Strides at = a.nhwc ? Strides{a.outputs, 1} : Strides{1, pixels};
  const int64_t first = i / pixels, last = a.noise_n == 1 ? a.n : first + 1;
  float sum = 0;
  for (int64_t n = first; n < last; ++n)
    for (int64_t o = 0; o < a.outputs; ++o)
      sum += widen(g[n * pixels * a.outputs + i % pixels * at.pixel + o * at.channel]);
  a.gnoise[i] = sum;
}

// sum of g over images, pixels: a block takes `lanes` channels of a share of an image; parts [n * shares, O]
template <class T>
__global__ void __launch_bounds__(kThreads) bias_kernel(gf_separable_conv2d_backward a, const T* g, float* parts,
                                                        int64_t share) {
  __shared__ float shared[kThreads];
  const int lanes = a.nhwc ? 32 : 1;
  const int64_t pixels = a.h * a.w, n = blockIdx.z, o = int64_t(blockIdx.y) * lanes + threadIdx.x % lanes;
  const int64_t from = blockIdx.x * share, to = from + share < pixels ? from + share : pixels;
  const Strides at = a.nhwc ? Strides{a.outputs, 1} : Strides{1, pixels};
  float sum = 0;
  for (int64_t p = from + threadIdx.x / lanes; o < a.outputs && p < to; p += kThreads / lanes)
    sum += widen(g[n * pixels * a.outputs + p * at.pixel + o * at.channel]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (int(threadIdx.x) >= lanes || o >= a.outputs) return;
  float total = 0;
  for (int i = threadIdx.x; i < kThreads; i += lanes) total += shared[i];
  parts[(n * gridDim.x + blockIdx.x) * a.outputs + o] = total;
}

// Pixels of an image that one block sums, a multiple of `step`, so that `blocks` times the shares fill the device.
int64_t share_of(int64_t pixels, int64_t step, int64_t blocks) {
  const int64_t most = (pixels + step - 1) / step, wanted = kBlocks / (blocks > 0 ? blocks : 1);
  const int64_t shares = wanted < 1 ? 1 : wanted < most ? wanted : most;
  return ((pixels + shares - 1) / shares + step - 1) / step * step;
}

int64_t pieces(int64_t total, int64_t size) { return (total + size - 1) / size; }

template <class T, int N>
gf_status weight(const gf_separable_conv2d_backward& a, const T* g, cudaStream_t stream) {
  const int64_t pixels = a.h * a.w, rows = pieces(a.outputs, kBlock), columns = pieces(a.inputs, kBlock);
  Weight<T, N> job;
  job.a = a, job.g = g;
  job.image = {static_cast<const T*>(a.x), static_cast<const T*>(a.depthwise), static_cast<const T*>(a.style),
               int(a.h), int(a.w), int(a.inputs), strides_of(a.nhwc, a.inputs, pixels)};
  job.share = share_of(pixels, kDepth, rows * columns * a.n);
  job.shares = pieces(pixels, job.share);
  const int64_t parts = a.n * job.shares;
  Scratch scratch(parts * a.outputs * a.inputs * sizeof(float), stream);
  if (scratch.failed()) return gf_fail(GF_CUDA_ERROR, "separable_conv2d_backward finds no memory for gpointwise");
  job.parts = scratch.as<float>();
  product_kernel<T, Weight<T, N>><<<dim3(rows, columns, parts), kProductThreads, 0, stream>>>(job);
  reduce_parts(job.parts, a.gpointwise, 1, parts, a.outputs * a.inputs, stream);
  return GF_OK;
}

template <class T>
gf_status backward(const gf_separable_conv2d_backward& a, cudaStream_t stream) {
  const int64_t pixels = a.h * a.w, lanes = a.nhwc ? 32 : 1, step = kThreads / lanes;
  const bool sums = a.gstyle || a.gdepthwise, need_t = a.gx || sums, need_g = a.gpointwise || a.gnoise || a.gbias;
  Scratch own_g(need_g && !a.g ? a.n * pixels * a.outputs * sizeof(T) : 0, stream);
  Scratch own_t(need_t && !a.t ? a.n * pixels * a.inputs * sizeof(T) : 0, stream);
  const int64_t share = share_of(pixels, step, pieces(a.inputs, lanes) * a.n), shares = pieces(pixels, share);
  Scratch own_sums(sums ? a.n * shares * kSums * a.inputs * sizeof(float) : 0, stream);
  const int64_t bias_share = share_of(pixels, step, pieces(a.outputs, lanes) * a.n);
  const int64_t bias_parts = pieces(pixels, bias_share);
  Scratch own_bias(a.gbias ? a.n * bias_parts * a.outputs * sizeof(float) : 0, stream);
  if (own_g.failed() || own_t.failed() || own_sums.failed() || own_bias.failed())
    return gf_fail(GF_CUDA_ERROR, "separable_conv2d_backward finds no memory for its scratch");
  T* g = !need_g ? nullptr : a.g ? static_cast<T*>(a.g) : own_g.as<T>();
  T* t = a.t ? static_cast<T*>(a.t) : own_t.as<T>();
  if (need_t) {
    Between<T> job;
    job.a = a, job.g = g, job.t = t;
    const dim3 grid(pieces(pixels, kBlock), pieces(a.inputs, kBlock), a.n);
    product_kernel<T, Between<T>><<<grid, kProductThreads, 0, stream>>>(job);
    depthwise_kernel<T><<<dim3(shares, pieces(a.inputs, lanes), a.n), kThreads, 0, stream>>>(
        a, t, sums ? own_sums.as<float>() : nullptr, share);
    const int64_t wanted = (a.n > 9 ? a.n : 9) * a.inputs;
    if (sums) collect_kernel<<<int(pieces(wanted, kThreads)), kThreads, 0, stream>>>(own_sums.as<float>(), a, shares);
  } else if (need_g) {
    activation_kernel<T><<<blocks_for(a.n * a.outputs * pixels, kThreads), kThreads, 0, stream>>>(a, g);
  }
  if (a.gnoise) noise_kernel<T><<<int(pieces(a.noise_n * pixels, kThreads)), kThreads, 0, stream>>>(a, g);
  if (a.gbias) {
    const dim3 grid(bias_parts, pieces(a.outputs, lanes), a.n);
    bias_kernel<T><<<grid, kThreads, 0, stream>>>(a, g, own_bias.as<float>(), bias_share);
    reduce_parts(own_bias.as<float>(), a.gbias, 1, a.n * bias_parts, a.outputs, stream);
  }
  if (!a.gpointwise) return GF_OK;
  const bool vectors = vectors_fit<T>(a.nhwc, a.inputs, a.x);
  return vectors ? weight<T, kVector<T>>(a, g, stream) : weight<T, 1>(a, g, stream);
}

}  // namespace
}  // namespace gf

extern "C" GF_API gf_status gf_separable_conv2d_backward_cuda(const gf_separable_conv2d_backward* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_separable_conv2d_backward_cuda"); !verdict.run) return verdict.status;
  if (a->n * a->h * a->w * a->outputs == 0) return GF_OK;
  if (a->haar_style) {  // through memory, as in the forward pass
    const int64_t bytes = a->n * a->inputs * a->h * a->w * gf::size_of(a->dtype);
    const bool outer = a->gx || a->ghaar_style;
    gf::Scratch u(bytes, cudaStream_t(stream)), gu(outer ? bytes : 0, cudaStream_t(stream));
    if (u.failed() || gu.failed())
      return gf_fail(GF_CUDA_ERROR, "separable_conv2d_backward finds no memory for the up-sampled image");
    const gf_haar up{a->dtype, a->nhwc, a->n, a->inputs, a->h / 2, a->w / 2, a->x, a->haar_style, u.as<void>()};
    gf_status status = gf_haar_cuda(&up, stream);
    if (status != GF_OK) return status;
    gf_separable_conv2d_backward plain = *a;
    plain.x = u.as<void>(), plain.haar_style = nullptr, plain.gx = gu.as<void>(), plain.ghaar_style = nullptr;
    status = gf_separable_conv2d_backward_cuda(&plain, stream);
    if (status != GF_OK || !outer) return status;
    const gf_haar_backward down{a->dtype, a->nhwc, a->n, a->inputs, a->h / 2, a->w / 2, gu.as<void>(), a->x,
                                a->haar_style, a->gx, a->ghaar_style};
    return gf_haar_backward_cuda(&down, stream);
  }
  gf_status status = GF_OK;
  GF_DISPATCH_DTYPE(a->dtype, T, status = gf::backward<T>(*a, cudaStream_t(stream)));
  return status == GF_OK ? gf::launched("separable_conv2d_backward") : status;
}
