// Native CPU path of bias_act: one pass where eager PyTorch takes three.
#include "bias_act.cuh"
#include "dispatch_dtype.h"
#include "isa.h"
#include "parallel.h"

namespace {

constexpr int64_t kGrain = 1 << 14;

template <class T, bool Inner>
void forward(const gf_bias_act& a) {
  const T* x = static_cast<const T*>(a.x);
  const T* bias = static_cast<const T*>(a.bias);
  T* y = static_cast<T*>(a.y);
  if constexpr (Inner) {  // a row has one channel
    gf::parallel_for(0, a.outer * a.channels, 1 + kGrain / a.inner, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float b = bias ? gf::load(bias[row % a.channels]) : 0.f;
        for (int64_t i = row * a.inner; i < (row + 1) * a.inner; ++i)
          gf::store(y + i, gf::activate(gf::load(x[i]) + b, a.activation, a.slope, a.gain, a.clamp));
      }
    });
  } else {  // a row has all channels
    gf::parallel_for(0, a.outer, 1 + kGrain / a.channels, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        for (int64_t c = 0; c < a.channels; ++c) {
          const int64_t i = row * a.channels + c;
          const float b = bias ? gf::load(bias[c]) : 0.f;
          gf::store(y + i, gf::activate(gf::load(x[i]) + b, a.activation, a.slope, a.gain, a.clamp));
        }
    });
  }
}

template <class T>
void backward(const gf_bias_act_backward& a) {
  const T* gy = static_cast<const T*>(a.gy);
  const T* y = static_cast<const T*>(a.y);
  T* gx = static_cast<T*>(a.gx);
  gf::parallel_for(0, a.outer * a.channels * a.inner, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      gf::store(gx + i, gf::load(gy[i]) * gf::activate_slope(gf::load(y[i]), a.activation, a.slope, a.gain, a.clamp));
  });
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_bias_act_cpu)(const gf_bias_act* a) {
  GF_DISPATCH_DTYPE(a->dtype, T, a->inner > 1 ? forward<T, true>(*a) : forward<T, false>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_bias_act_cpu, gf_bias_act)

extern "C" gf_status GF_LOCAL(gf_bias_act_backward_cpu)(const gf_bias_act_backward* a) {
  GF_DISPATCH_DTYPE(a->dtype, T, backward<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_bias_act_backward_cpu, gf_bias_act_backward)
