// CUDA launchers of triplane_render: a block takes one ray after another, a thread one sample of it.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "element.h"
#include "triplane_render_block.cuh"

namespace {

using namespace gf::triplane;

constexpr int kForwardBlocks = 1 << 16;

template <class T>
__global__ void __launch_bounds__(GF_TRIPLANE_MOST_SAMPLES) forward(gf_triplane_render a) {
  extern __shared__ __align__(16) float shared[];
  const gf_triplane_scene& scene = a.scene;
  const int coarse = a.coarse, fine = a.fine, count = coarse + fine, i = threadIdx.x, wide = blockDim.x;
  const DecoderInBlock decoder = load_decoder<T>(scene, shared);
  float* unsorted = shared + kDecoderFloats;  // arrays of one number a sample
  float *depth = unsorted + wide, *sigma = depth + wide, *alpha = sigma + wide, *through = alpha + wide;
  float* weight = through + wide;
  float* cdf = weight + wide;
  float* sums = cdf + wide;  // [warps, 32]
  for (int64_t index = blockIdx.x; index < scene.batch * scene.rays; index += gridDim.x) {
    __syncthreads();
    const RayInBlock<T> ray(scene, index);
    float feature[kChannels];
    // coarse samples
    if (i < coarse)
      unsorted[i] = coarse_depth(a.near_end[index], a.far_end[index], coarse, i,
                                 a.jitter ? a.jitter[index * coarse + i] : 0.5f);
    // fine samples where the weight is
    if (fine > 0) {
      if (i < coarse) {
        ray.sample(unsorted[i], feature);
        sigma[i] = decoder.density(feature);
      }
      __syncthreads();
      if (i < coarse - 1) alpha[i] = opacity(sigma[i], sigma[i + 1], unsorted[i + 1] - unsorted[i]);
      __syncthreads();
      if (i == 0) transmittance(alpha, coarse - 1, through);
      __syncthreads();
      if (i < coarse - 1) weight[i] = alpha[i] * through[i];
      __syncthreads();
      if (i == 0) cumulate(weight, coarse - 1, cdf);
      __syncthreads();
      if (i < fine) {
        const float u = a.u ? a.u[index * fine + i] : float(i + 1) / float(fine + 1);
        unsorted[coarse + i] = quantile(unsorted, cdf, coarse - 2, u);
      }
    }
    __syncthreads();
    // the union in order
    if (i < count) depth[rank_of(unsorted, count, i)] = unsorted[i];
    __syncthreads();
    float colour[kColours];
    if (i < count) {
      a.depths[index * count + i] = depth[i];
      ray.sample(depth[i], feature);
      sigma[i] = decoder.decode(feature, colour);
    }
    __syncthreads();
    // march
    if (i < count - 1) alpha[i] = opacity(sigma[i], sigma[i + 1], depth[i + 1] - depth[i]);
    __syncthreads();
    if (i == 0) transmittance(alpha, count - 1, through);
    __syncthreads();
    weight[i] = i < count - 1 ? alpha[i] * through[i] : 0;
    __syncthreads();
    // composite: a sample has half of the weight before it, half of that behind it
    const float half = i < count ? ((i > 0 ? weight[i - 1] : 0) + weight[i]) * 0.5f : 0;
    float mine = 0;  // lane o keeps the sum of colour o
#pragma unroll
    for (int o = 0; o < kColours; ++o) {
      const float sum = warp_sum(i < count ? half * (sigmoid(colour[o]) * (1 + 2 * kWiden) - kWiden) : 0.f);
      if ((i & 31) == o) mine = sum;
    }
    sums[i] = mine;
    float total = warp_sum(weight[i]);
    float middle = warp_sum(i < count - 1 ? weight[i] * (depth[i] + depth[i + 1]) * 0.5f : 0.f);
    if ((i & 31) == 0) through[i >> 5] = total, alpha[i >> 5] = middle;
    __syncthreads();
    if (i < 32) {
      total = middle = mine = 0;
      for (int w = 0; w < wide / 32; ++w) total += through[w], middle += alpha[w], mine += sums[w * 32 + i];
      if (scene.white_back) mine += 1 - total;
      gf::store(static_cast<T*>(a.features) + index * kColours + i, mine * 2 - 1);
      if (i == 0) {
        a.depth[index] = total == 0 ? INFINITY : middle / total;
        a.total[index] = total;
      }
    }
  }
}

// Adds one channel of a texel's gradient to global memory.
template <bool Fixed>
struct AddToTexel {
  float* sums;
  unsigned long long* fixed;
  float scale;
  int width, height;

  __device__ __forceinline__ void operator()(int x, int y, float value) const {
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const int64_t at = (int64_t(y) * width + x) * kChannels;
    if (Fixed) atomicAdd(fixed + at, static_cast<unsigned long long>(static_cast<long long>(value * scale)));
    else atomicAdd(sums + at, value);
  }
};

enum Kind { kNothing, kSums, kLargest, kFixed };

template <class T, Kind kind, bool Weights>
__global__ void __launch_bounds__(GF_TRIPLANE_MOST_SAMPLES, 1) backward(gf_triplane_render_backward a) {
  extern __shared__ __align__(16) float shared[];
  const gf_triplane_scene& scene = a.scene;
  const int count = a.samples, intervals = count - 1, i = threadIdx.x, wide = blockDim.x;
  const DecoderInBlock decoder = load_decoder<T>(scene, shared);
  float* depth = shared + kDecoderFloats;
  float *sigma = depth + wide, *alpha = sigma + wide, *through = alpha + wide, *weight = through + wide;
  float *terms = weight + wide, *behind = terms + wide, *seen = behind + wide;
  float* gfeatures = seen + wide;             // [32]
  float* rows = gfeatures + kColours;         // [samples, 33]: feature gradients, or features
  float* weights = rows + wide * kRow;        // [WEIGHTS], then the rows of WeightSums
  float largest = 0;
  if (Weights)
    for (int k = i; k < GF_TRIPLANE_WEIGHTS; k += wide) weights[k] = 0;
  for (int64_t index = blockIdx.x; index < scene.batch * scene.rays; index += gridDim.x) {
    __syncthreads();
    const RayInBlock<T> ray(scene, index);
    if (i < count) depth[i] = a.depths[index * count + i];
    for (int o = i; o < kColours; o += wide)
      gfeatures[o] = gf::load(static_cast<const T*>(a.gfeatures)[index * kColours + o]);
    __syncthreads();
    // samples again
    float feature[kChannels], colour[kColours];
    float dot = 0, gsum = 0;
    if (i < count) {
      ray.sample(depth[i], feature);
      sigma[i] = decoder.decode(feature, colour);
#pragma unroll
      for (int o = 0; o < kColours; ++o) {
        colour[o] = sigmoid(colour[o]);
        dot += gfeatures[o] * (colour[o] * (1 + 2 * kWiden) - kWiden);
        gsum += gfeatures[o];
      }
      seen[i] = dot;
    }
    __syncthreads();
    // march
    if (i < intervals) alpha[i] = opacity(sigma[i], sigma[i + 1], depth[i + 1] - depth[i]);
    __syncthreads();
    if (i == 0) transmittance(alpha, intervals, through);
    __syncthreads();
    if (i < intervals) weight[i] = alpha[i] * through[i];
    __syncthreads();
    float total = 0, middle = 0;  // every thread adds all of them: the same sum everywhere
    for (int k = 0; k < intervals; ++k) {
      total += weight[k];
      middle += weight[k] * (depth[k] + depth[k + 1]) * 0.5f;
    }
    const Pull p = pull_of(a.gtotal[index], a.gdepth[index], gsum, total, scene.white_back);
    float pull = 0;
    if (i < intervals) {
      const float mean = total > 0 ? middle / total : 0;
      pull = seen[i] + seen[i + 1] + p.all + p.along * ((depth[i] + depth[i + 1]) * 0.5f - mean);
      terms[i] = weight[i] * pull;
    }
    __syncthreads();
    // reverse march
    if (i == 0) suffix_sums(terms, intervals, behind);
    __syncthreads();
    if (i < intervals)
      terms[i] = density_gradient(alpha[i], through[i], pull, behind[i], sigma[i], sigma[i + 1], depth[i + 1] - depth[i]);
    __syncthreads();
    const bool real = i < count;
    const float gsigma =
        real ? ((i > 0 ? terms[i - 1] : 0) + (i < intervals ? terms[i] : 0)) * 0.5f : 0;
    const float both =
        real ? ((i > 0 ? weight[i - 1] : 0) + (i < intervals ? weight[i] : 0)) * (1 + 2 * kWiden) : 0;
#pragma unroll
    for (int o = 0; o < kColours; ++o) colour[o] = real ? both * gfeatures[o] * colour[o] * (1 - colour[o]) : 0;
    // decoder, from its output to its input
    float gfeature[kChannels] = {};
    if (Weights) {
      WeightSums sums{weights, rows, i, wide, count};
      sums.start(real, feature, colour, gsigma);
      decoder.back(feature, colour, gsigma, real, gfeature, sums);
    } else {
      NoWeightSums none;
      decoder.back(feature, colour, gsigma, real, gfeature, none);
    }
    if (kind == kLargest)
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const float size = fabsf(gfeature[c]) * (1 / 3.f);
        largest = size <= largest ? largest : size;  // a NaN stays
      }
    if (kind == kSums || kind == kFixed) {
      // planes: a warp takes one, a lane a channel; texels are added up in registers along the ray
      __syncthreads();
      if (real)
#pragma unroll
        for (int c = 0; c < kChannels; ++c) rows[i * kRow + c] = gfeature[c] * (1 / 3.f);
      __syncthreads();
      const int width = int(scene.width), height = int(scene.height), lane = i & 31;
      for (int plane = i >> 5; plane < 3; plane += wide >> 5) {
        const int64_t from = (index / scene.rays * 3 + plane) * height * int64_t(width) * kChannels + lane;
        const AddToTexel<kind == kFixed> add{kind == kSums ? a.gplanes + from : nullptr,
                                             kind == kFixed ? reinterpret_cast<unsigned long long*>(a.fixed) + from : nullptr,
                                             kind == kFixed ? *a.scale : 1.f, width, height};
        TexelCache cache;
        for (int k = 0; k < count; ++k) cache.add(ray.cell(plane, depth[k]), rows[k * kRow + lane], add);
        cache.finish(add);
      }
    }
  }
  if (kind == kLargest) {
    __syncthreads();
    depth[i] = largest;
    __syncthreads();
    if (i == 0) {
      for (int k = 1; k < wide; ++k) largest = depth[k] <= largest ? largest : depth[k];
      a.largest[blockIdx.x] = largest;
    }
  }
  if (Weights) {
    __syncthreads();
    for (int k = i; k < GF_TRIPLANE_WEIGHTS; k += wide)
      a.partials[int64_t(blockIdx.x) * GF_TRIPLANE_WEIGHTS + k] = weights[k];
  }
}

int threads_for(int samples) { return (samples + 31) / 32 * 32; }

template <class T, Kind kind, bool Weights>
gf_status run_backward(const gf_triplane_render_backward& a, cudaStream_t stream) {
  const int threads = threads_for(a.samples);
  const size_t floats = kDecoderFloats + 8 * threads + kColours + threads * kRow +
                        (Weights ? GF_TRIPLANE_WEIGHTS + WeightSums::floats(threads) : 0);
  cudaFuncSetAttribute(backward<T, kind, Weights>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(floats * 4));
  backward<T, kind, Weights><<<int(a.rows), threads, floats * 4, stream>>>(a);
  return gf::launched("triplane_render_backward");
}

template <class T, bool Weights>
gf_status choose_backward(const gf_triplane_render_backward& a, cudaStream_t stream) {
  if (a.largest) return run_backward<T, kLargest, false>(a, stream);
  if (a.fixed) return run_backward<T, kFixed, Weights>(a, stream);
  if (a.gplanes || !Weights) return run_backward<T, kSums, Weights>(a, stream);
  return run_backward<T, kNothing, true>(a, stream);
}

}  // namespace

extern "C" GF_API gf_status gf_triplane_render_cuda(const gf_triplane_render* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_triplane_render_cuda"); !verdict.run) return verdict.status;
  const gf_status status = check_render(*a);
  const int64_t rays = a->scene.batch * a->scene.rays;
  if (status != GF_OK || rays == 0) return status;
  const int threads = threads_for(a->coarse + a->fine);
  const int blocks = int(rays < kForwardBlocks ? rays : kForwardBlocks);
  const size_t bytes = (kDecoderFloats + 8 * threads) * sizeof(float);
  GF_DISPATCH_DTYPE(a->scene.dtype, T, (forward<T><<<blocks, threads, bytes, cudaStream_t(stream)>>>(*a)));
  return gf::launched("triplane_render");
}

extern "C" GF_API gf_status gf_triplane_render_backward_cuda(const gf_triplane_render_backward* a, void* stream) {
  if (const gf::Verdict verdict = gf::judge(a, "gf_triplane_render_backward_cuda"); !verdict.run) return verdict.status;
  gf_status status = check_scene(a->scene, a->samples);
  if (status == GF_OK && !a->gplanes && !a->fixed && !a->largest && !a->partials)
    status = gf_fail(GF_INVALID, "no gradient is asked for; give gplanes, fixed, largest or partials");
  if (status == GF_OK && a->fixed && !a->scale) status = gf_fail(GF_INVALID, "fixed is given without its scale");
  if (status == GF_OK && (a->rows < 1 || a->rows > 65535))
    status = gf_fail(GF_INVALID, "rows is %lld; it is the number of blocks, 1 to 65535", (long long)a->rows);
  if (status != GF_OK) return status;
  GF_DISPATCH_DTYPE(a->scene.dtype, T,
                    status = a->partials ? choose_backward<T, true>(*a, cudaStream_t(stream))
                                         : choose_backward<T, false>(*a, cudaStream_t(stream)));
  return status;
}
