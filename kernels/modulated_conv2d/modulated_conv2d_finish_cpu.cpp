// What surrounds a dense convolution of another library on the CPU: one pass over memory forward, two backward.
#include <algorithm>
#include <vector>

#include "isa.h"
#include "modulated_conv2d.cuh"
#include "parallel.h"

namespace {

constexpr int64_t kTask = 1 << 14;   // elements of one task, so that its sums stay in the cache
constexpr int64_t kSums = 1 << 16;   // elements behind one partial sum: their number does not depend on the threads

int64_t pixels_of(int64_t elements, int64_t channels) { return std::max<int64_t>(1, elements / channels); }

// One pixel's channels; `Demod`, `Next` leave out multiplications by 1.
template <bool Demod, bool Next>
void finish_pixel(const gf_modulated_conv2d_finish& a, const float* demod, const float* next, float noise,
                  const float* z, float* y) {
  const gf::Epilogue epilogue{a.activation, a.slope, a.gain, a.clamp};
  if (a.bias)
    for (int64_t c = 0; c < a.channels; ++c)
      y[c] = epilogue(z[c], Demod ? demod[c] : 1.f, noise, a.bias[c], Next ? next[c] : 1.f);
  else
    for (int64_t c = 0; c < a.channels; ++c)
      y[c] = epilogue(z[c], Demod ? demod[c] : 1.f, noise, 0.f, Next ? next[c] : 1.f);
}

template <bool Demod, bool Next>
void finish_all(const gf_modulated_conv2d_finish& a) {
  gf::parallel_for(0, a.n * a.pixels, pixels_of(kTask, a.channels), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t image = at / a.pixels;
      const float noise = a.noise ? a.noise[image * a.noise_stride + at % a.pixels] : 0.f;
      const int64_t row = image * a.channels;
      finish_pixel<Demod, Next>(a, Demod ? a.demod + row : nullptr, Next ? a.next_style + row : nullptr, noise,
                                a.z + at * a.channels, a.y + at * a.channels);
    }
  });
}

// Parts of an image whose sums are taken apart, so that their order is the same on any number of threads.
struct Parts {
  int64_t n, pixels, size, count;

  Parts(int64_t images, int64_t image_pixels, int64_t channels)
      : n(images), pixels(image_pixels), size(pixels_of(kSums, channels)), count((image_pixels + size - 1) / size) {}

  // body(image, first pixel, end, number of the part)
  template <class Body>
  void each(const Body& body) const {
    gf::parallel_for(0, n * count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part % count * size;
        body(part / count, first, std::min(pixels, first + size), part);
      }
    });
  }
};

// out[row, c] = sum over the row's parts.
void add_parts(const std::vector<float>& sums, int64_t rows, int64_t parts, int64_t channels, float* out) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[(row * parts + part) * channels + c];
      out[row * channels + c] = float(sum);
    }
}

void finish_backward(const gf_modulated_conv2d_finish_backward& a) {
  const Parts parts(a.n, a.pixels, a.channels);
  const gf::Epilogue epilogue{a.activation, a.slope, a.gain, a.clamp};
  const size_t wanted = size_t(a.n * parts.count * a.channels);
  std::vector<float> bias_sums(a.gbias ? wanted : 0), demod_sums(a.gdemod ? wanted : 0);
  parts.each([&](int64_t image, int64_t first, int64_t end, int64_t part) {
    std::vector<float> g(a.channels);
    const float* demod = a.demod ? a.demod + image * a.channels : nullptr;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = (image * a.pixels + pixel) * a.channels;
      const float* y = a.y + at;
      for (int64_t c = 0; c < a.channels; ++c) g[c] = epilogue.backward(a.gy[at + c], y[c]);
      if (a.gnoise) {
        float sum = 0;
        for (int64_t c = 0; c < a.channels; ++c) sum += g[c];
        a.gnoise[image * a.pixels + pixel] = sum;
      }
      if (a.gbias) {
        float* sums = bias_sums.data() + part * a.channels;
        for (int64_t c = 0; c < a.channels; ++c) sums[c] += g[c];
      }
      if (a.gdemod) {  // the convolution's output is (pre - noise - bias) / demod
        float* sums = demod_sums.data() + part * a.channels;
        const float noise = a.noise ? a.noise[image * a.noise_stride + pixel] : 0.f;
        if (a.bias)
          for (int64_t c = 0; c < a.channels; ++c)
            sums[c] += g[c] * (epilogue.pre_activation(y[c]) - noise - a.bias[c]);
        else
          for (int64_t c = 0; c < a.channels; ++c) sums[c] += g[c] * (epilogue.pre_activation(y[c]) - noise);
      }
      if (a.g) {
        if (demod)
          for (int64_t c = 0; c < a.channels; ++c) a.g[at + c] = g[c] * demod[c];
        else
          std::copy(g.begin(), g.end(), a.g + at);
      }
    }
  });
  if (a.gbias) add_parts(bias_sums, 1, a.n * parts.count, a.channels, a.gbias);
  if (a.gdemod) {
    add_parts(demod_sums, a.n, parts.count, a.channels, a.gdemod);
    for (int64_t i = 0; i < a.n * a.channels; ++i) a.gdemod[i] /= a.demod[i];
  }
}

void scale_backward(const gf_modulated_conv2d_scale_backward& a) {
  const Parts parts(a.n, a.pixels, a.channels);
  const bool direct = a.gstyle && parts.count == 1;
  if (direct) std::fill_n(a.gstyle, a.n * a.channels, 0.f);
  std::vector<float> sums(a.gstyle && !direct ? size_t(a.n * parts.count * a.channels) : 0);
  parts.each([&](int64_t image, int64_t first, int64_t end, int64_t part) {
    const float* style = a.style ? a.style + image * a.channels : nullptr;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = (image * a.pixels + pixel) * a.channels;
      if (a.gstyle) {
        float* sum = (direct ? a.gstyle : sums.data()) + part * a.channels;
        for (int64_t c = 0; c < a.channels; ++c) sum[c] += a.t[at + c] * a.x[at + c];
      }
      if (a.gx)
        for (int64_t c = 0; c < a.channels; ++c) a.gx[at + c] = style ? a.t[at + c] * style[c] : a.t[at + c];
    }
  });
  if (a.gstyle && !direct) add_parts(sums, a.n, parts.count, a.channels, a.gstyle);
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_finish_cpu)(const gf_modulated_conv2d_finish* a) {
  if (a->demod)
    a->next_style ? finish_all<true, true>(*a) : finish_all<true, false>(*a);
  else
    a->next_style ? finish_all<false, true>(*a) : finish_all<false, false>(*a);
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_finish_cpu, gf_modulated_conv2d_finish)

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_finish_backward_cpu)(const gf_modulated_conv2d_finish_backward* a) {
  finish_backward(*a);
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_finish_backward_cpu, gf_modulated_conv2d_finish_backward)

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_scale_backward_cpu)(const gf_modulated_conv2d_scale_backward* a) {
  scale_backward(*a);
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_scale_backward_cpu, gf_modulated_conv2d_scale_backward)
