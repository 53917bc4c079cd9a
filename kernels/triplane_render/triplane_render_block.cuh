// What the threads of a block share of a ray: the decoder in shared memory, texels of a sample, sums of weights.
#pragma once

#include <cuda_runtime.h>

#include "element.h"
#include "triplane_render.cuh"

namespace gf::triplane {

constexpr int kRow = kChannels + 1;  // of staged vectors: an odd number of banks
constexpr int kPart = 16;            // hidden units whose weights' gradients are made at a time

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Where gradients of weights are not wanted.
struct NoWeightSums {
  __device__ __forceinline__ void add(int, float, float) {}
};

// The decoder, a hidden unit's numbers together: w1 row [32], its column of w2 [32], b1, density's weight, padded.
constexpr int kUnit = kChannels + kColours + 4;
constexpr int kDecoderFloats = kHidden * kUnit + kColours + 4;

struct DecoderInBlock {
  const float* units;  // [64, kUnit]
  const float* b2;     // [32], then density's

  __device__ __forceinline__ float before(const float* unit, const float (&feature)[kChannels]) const {
    float sum = unit[kChannels + kColours];
#pragma unroll
    for (int c = 0; c < kChannels; c += 4) {
      const float4 w = *reinterpret_cast<const float4*>(unit + c);
      sum += w.x * feature[c] + w.y * feature[c + 1] + w.z * feature[c + 2] + w.w * feature[c + 3];
    }
    return sum;
  }

  __device__ __forceinline__ float density(const float (&feature)[kChannels]) const {
    float sigma = b2[kColours];
    for (int j = 0; j < kHidden; ++j) {
      const float* unit = units + j * kUnit;
      sigma += softplus(before(unit, feature)) * unit[kChannels + kColours + 1];
    }
    return sigma;
  }

  // raw density; colours before the logistic function
  __device__ __forceinline__ float decode(const float (&feature)[kChannels], float (&colour)[kColours]) const {
    float sigma = b2[kColours];
#pragma unroll
    for (int o = 0; o < kColours; ++o) colour[o] = b2[o];
    for (int j = 0; j < kHidden; ++j) {
      const float* unit = units + j * kUnit;
      const float hidden = softplus(before(unit, feature));
      sigma += hidden * unit[kChannels + kColours + 1];
#pragma unroll
      for (int o = 0; o < kColours; o += 4) {
        const float4 w = *reinterpret_cast<const float4*>(unit + kChannels + o);
        colour[o] += hidden * w.x, colour[o + 1] += hidden * w.y;
        colour[o + 2] += hidden * w.z, colour[o + 3] += hidden * w.w;
      }
    }
    return sigma;
  }

  // gradients of the outputs -> those of the feature; hidden units are made again, `sums` gets each with its gradient
  template <class Sums>
  __device__ __forceinline__ void back(const float (&feature)[kChannels], const float (&gcolour)[kColours],
                                       float gsigma, bool real, float (&gfeature)[kChannels], Sums& sums) const {
    for (int j = 0; j < kHidden; ++j) {
      const float* unit = units + j * kUnit;
      float hidden = 0, grad = 0;
      if (real) {
        const float x = before(unit, feature);
        hidden = softplus(x);
        grad = gsigma * unit[kChannels + kColours + 1];
#pragma unroll
        for (int o = 0; o < kColours; o += 4) {
          const float4 w = *reinterpret_cast<const float4*>(unit + kChannels + o);
          grad += w.x * gcolour[o] + w.y * gcolour[o + 1] + w.z * gcolour[o + 2] + w.w * gcolour[o + 3];
        }
        grad *= sigmoid(x);
#pragma unroll
        for (int c = 0; c < kChannels; c += 4) {
          const float4 w = *reinterpret_cast<const float4*>(unit + c);
          gfeature[c] += grad * w.x, gfeature[c + 1] += grad * w.y;
          gfeature[c + 2] += grad * w.z, gfeature[c + 3] += grad * w.w;
        }
      }
      sums.add(j, hidden, grad);
    }
  }
};

// All threads fill `at` with the decoder's kDecoderFloats, 16-byte aligned.
template <class T>
__device__ __forceinline__ DecoderInBlock load_decoder(const gf_triplane_scene& scene, float* at) {
  const T *w1 = static_cast<const T*>(scene.w1), *b1 = static_cast<const T*>(scene.b1);
  const T *w2 = static_cast<const T*>(scene.w2), *b2 = static_cast<const T*>(scene.b2);
  for (int k = threadIdx.x; k < kHidden * kUnit; k += blockDim.x) {
    const int j = k / kUnit, part = k % kUnit;
    float value = 0;
    if (part < kChannels) value = gf::load(w1[j * kChannels + part]);
    else if (part < kChannels + kColours) value = gf::load(w2[(1 + part - kChannels) * kHidden + j]);
    else if (part == kChannels + kColours) value = gf::load(b1[j]);
    else if (part == kChannels + kColours + 1) value = gf::load(w2[j]);
    at[k] = value;
  }
  float* b2_at = at + kHidden * kUnit;
  for (int k = threadIdx.x; k < kColours + 1; k += blockDim.x) b2_at[k] = gf::load(b2[k < kColours ? k + 1 : 0]);
  __syncthreads();
  return {at, b2_at};
}

template <class T>
struct RayInBlock {
  const gf_triplane_scene& scene;
  const T* planes;
  float origin[3], direction[3], scale;

  __device__ __forceinline__ RayInBlock(const gf_triplane_scene& s, int64_t index)
      : scene(s), planes(static_cast<const T*>(s.planes) + index / s.rays * s.stride_batch), scale(2 / s.box_warp) {
    for (int axis = 0; axis < 3; ++axis) {
      origin[axis] = s.origins[index * 3 + axis];
      direction[axis] = s.directions[index * 3 + axis];
    }
  }

  __device__ __forceinline__ Cell cell(int plane, float depth) const {
    const auto at = [&](int axis) { return coordinate(origin[axis], direction[axis], depth, scale); };
    return cell_on_plane(plane, at(0), at(1), at(2), int(scene.width), int(scene.height));
  }

  // mean over the planes
  __device__ __forceinline__ void sample(float depth, float (&feature)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) feature[c] = 0;
    for (int plane = 0; plane < 3; ++plane) {
      const Cell at = cell(plane, depth);
      for (int corner = 0; corner < 4; ++corner) {
        const float weight = corner_weight(at, corner, int(scene.width), int(scene.height)) * (1 / 3.f);
        if (weight == 0) continue;
        const T* texel = planes + plane * scene.stride_plane + (at.y + (corner >> 1)) * scene.stride_y +
                         (at.x + (corner & 1)) * scene.stride_x;
        add_texel(texel, weight, feature);
      }
    }
  }

  // 16 bytes at a time where the texel allows it
  static __device__ __forceinline__ void add_texel(const T* texel, float weight, float (&feature)[kChannels]) {
    constexpr int kStep = 16 / sizeof(T);
    if ((reinterpret_cast<uintptr_t>(texel) & 15) == 0) {
#pragma unroll
      for (int c = 0; c < kChannels; c += kStep) {
        const uint4 bits = __ldg(reinterpret_cast<const uint4*>(texel + c));
        T values[kStep];
        memcpy(values, &bits, sizeof bits);
#pragma unroll
        for (int k = 0; k < kStep; ++k) feature[c + k] += weight * gf::load(values[k]);
      }
    } else {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) feature[c] += weight * gf::load(texel[c]);
    }
  }
};

// Gradients of the weights, summed over a block's samples in their order: kPart hidden units at a time are staged,
// then every thread adds up its own weights.
struct WeightSums {
  float* sums;      // [WEIGHTS], flat as a decoder, then staged: colours [wide, 33], density [wide], two parts
  float* features;  // [wide, 33]
  int i, wide, count;

  static size_t floats(int wide) { return size_t(wide) * (kRow + 1 + 2 * (kPart + 1)); }

  __device__ __forceinline__ float* colours() const { return sums + GF_TRIPLANE_WEIGHTS; }
  __device__ __forceinline__ float* densities() const { return colours() + wide * kRow; }
  __device__ __forceinline__ float* hiddens() const { return densities() + wide; }
  __device__ __forceinline__ float* grads() const { return hiddens() + wide * (kPart + 1); }

  __device__ __forceinline__ void start(bool real, const float (&feature)[kChannels],
                                        const float (&gcolour)[kColours], float gsigma) const {
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kChannels; ++c) features[i * kRow + c] = real ? feature[c] : 0;
#pragma unroll
    for (int o = 0; o < kColours; ++o) colours()[i * kRow + o] = gcolour[o];
    densities()[i] = gsigma;
    __syncthreads();
    for (int o = i; o < 1 + kColours; o += wide) {
      float sum = 0;
      for (int s = 0; s < count; ++s) sum += o == 0 ? densities()[s] : colours()[s * kRow + o - 1];
      sums[kB2 + o] += sum;
    }
  }

  __device__ __forceinline__ void add(int j, float hidden, float grad) const {
    hiddens()[i * (kPart + 1) + j % kPart] = hidden;
    grads()[i * (kPart + 1) + j % kPart] = grad;
    if (j % kPart < kPart - 1) return;
    __syncthreads();
    const int first = j - (kPart - 1);
    for (int k = i; k < kPart * (kChannels + kColours + 2); k += wide) {
      const int unit = k % kPart, part = k / kPart;  // part: a channel, a colour, density, bias
      float sum = 0;
      for (int s = 0; s < count; ++s) {
        const float h = hiddens()[s * (kPart + 1) + unit], g = grads()[s * (kPart + 1) + unit];
        sum += part < kChannels              ? g * features[s * kRow + part]
               : part < kChannels + kColours ? h * colours()[s * kRow + part - kChannels]
               : part == kChannels + kColours ? h * densities()[s]
                                              : g;
      }
      const int row = first + unit;
      const int to = part < kChannels               ? row * kChannels + part
                     : part < kChannels + kColours  ? kW2 + (1 + part - kChannels) * kHidden + row
                     : part == kChannels + kColours ? kW2 + row
                                                    : kB1 + row;
      sums[to] += sum;
    }
    __syncthreads();
  }
};

}  // namespace gf::triplane
