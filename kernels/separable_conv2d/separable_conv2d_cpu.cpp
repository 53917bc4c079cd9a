// Native CPU path of separable_conv2d: per strip of rows, wavelet and depthwise stay in the cache before one product.
#include <algorithm>
#include <vector>

#include "guide_fast/separable_conv2d.h"
#include "isa.h"
#include "parallel.h"
#include "separable_conv2d_rows.h"

namespace {

constexpr int64_t kTasks = 16;       // wanted for any number of threads
constexpr int64_t kLeastPixels = 64;  // of a group of rows: fewer would read b too often for the arithmetic
constexpr int64_t kStreamFloats = 4 << 20;  // of y: more than a cache holds until the next layer

// After the product: noise, bias, activation, gain, clamp, next style, store.
struct Epilogue {
  const float* bias;   // of the panel's first channel
  const float* next;   // the same, or NULL
  const float* noise;  // of the group's first pixel, or NULL
  float slope, gain, clamp;
  float* y;  // of the group's first pixel, the panel's first channel
  int64_t y_pixel, y_channel;
  int64_t pixels, channels;
  bool stream;

  GF_INLINE void operator()(int64_t p, int q, vec sum) const {
    if (p >= pixels) return;
    sum += load_vec(bias + q * kLanes);
    if (noise) sum += noise[p];
    sum = (sum < 0 ? sum * slope : sum) * gain;
    if (clamp >= 0) sum = sum > clamp ? fill_vec(clamp) : sum < -clamp ? fill_vec(-clamp) : sum;
    if (next) sum *= load_vec(next + q * kLanes);
    float* at = y + p * y_pixel + q * kLanes * y_channel;
    if (stream) return stream_vec(at, sum);
    if (y_channel == 1 && (q + 1) * kLanes <= channels) return store_vec(at, sum);
    const int64_t rest = std::min<int64_t>(kLanes, channels - q * kLanes);
    if (y_channel == 1) return store_some(at, sum, rest);
    for (int64_t c = 0; c < rest; ++c) at[c * y_channel] = sum[c];
  }
};

struct Forward {
  const gf_separable_conv2d& a;
  UpRows::Source source;
  const float* packed;     // a panel after another, for each image where there is no depthwise convolution
  const float* depthwise;  // [n][9][step]
  const float* bias;       // [padded outputs]
  const float* next;       // [n][padded outputs], or NULL
  int64_t padded, group, strips, splits;
  bool stream;

  // One strip of rows of one image, one range of panels.
  void strip(int64_t image, int64_t strip, int64_t split) const {
    const int64_t begin = a.h * strip / strips, end = a.h * (strip + 1) / strips;
    const int64_t panels = panel_count(a.outputs);
    UpRows rows(source, image, 4);  // three rows, and the second of a pair
    const int64_t step = rows.step();
    const int64_t v_step = step + kLanes;  // rows a power of two apart would share cache sets
    const int64_t v_size = std::max<int64_t>(group * a.w, kMaxPixels) * v_step;
    static thread_local Scratch scratch;
    float* v = scratch.take(v_size + rows.floats());
    rows.begin(v + v_size, begin - (a.depthwise ? 1 : 0));
    if (group * a.w < kMaxPixels) std::fill(v, v + v_size, 0.f);  // blocks read beyond the pixels
    const bool direct = !a.depthwise && !source.half && a.nhwc && a.w >= kMaxPixels;
    for (int64_t row = begin; row < end; row += group) {
      const int64_t count = std::min(group, end - row);
      const float* in = direct ? source.x + (image * a.h + row) * a.w * a.inputs : v;
      const int64_t in_step = direct ? a.inputs : v_step;
      for (int64_t i = 0; i < count && !direct; ++i) between(rows, image, row + i, v + i * a.w * v_step, v_step);
      const int64_t first = panels * split / splits;
      const Soon soon = row + count < end ? rows.soon(row + count + (a.depthwise ? 1 : 0), count) : Soon{};
      for (int64_t p = first; p < panels * (split + 1) / splits; ++p)
        panel(image, row, count * a.w, panel_at(p, a.outputs), in, in_step, p == first ? soon : Soon{});
    }
    if (stream) store_fence();
  }

  // v of one row: what the pointwise convolution reads
  void between(UpRows& rows, int64_t image, int64_t row, float* v, int64_t v_step) const {
    const int64_t step = rows.step();
    if (a.depthwise) {
      const float *above = rows.row(row - 1), *here = rows.row(row), *below = rows.row(row + 1);
      const float* const three[3] = {above, here, below};
      depthwise_row(three, step, a.w, step, depthwise + image * 9 * step, step, v, v_step);
    } else {
      const float* here = rows.row(row);
      for (int64_t j = 0; j < a.w; ++j) std::memcpy(v + j * v_step, here + j * step, step * sizeof(float));
    }
  }

  void panel(int64_t image, int64_t row, int64_t pixels, Panel panel, const float* v, int64_t v_step,
             const Soon& soon) const {
    const int64_t size = a.h * a.w, at = row * a.w;
    const float* noise = static_cast<const float*>(a.noise);
    float* y = static_cast<float*>(a.y);
    const Epilogue epilogue{
        bias + panel.first,
        next ? next + image * padded + panel.first : nullptr,
        noise ? noise + (a.noise_n == 1 ? 0 : image) * size + at : nullptr,
        a.activation == GF_LRELU ? a.slope : 1.f,
        a.gain,
        a.clamp,
        a.nhwc ? y + (image * size + at) * a.outputs + panel.first : y + (image * a.outputs + panel.first) * size + at,
        a.nhwc ? a.outputs : 1,
        a.nhwc ? 1 : size,
        pixels,
        a.outputs - panel.first,
        stream};
    const float* b = packed + (a.depthwise ? 0 : image * packed_size(a.inputs, a.outputs)) + panel.first * a.inputs;
    product({v, v_step, 1, b, panel.wide * kLanes, pixels, a.inputs}, panel.wide, soon, epilogue);
  }
};

}  // namespace

extern "C" gf_status GF_LOCAL(gf_separable_conv2d_cpu)(const gf_separable_conv2d* arguments) {
  const gf_separable_conv2d& a = *arguments;
  if (a.dtype != GF_FLOAT32)
    return gf_fail(GF_INVALID, "dtype %d is not known to separable_conv2d on the CPU; convert to float32", int(a.dtype));
  const float *style = static_cast<const float*>(a.style), *pointwise = static_cast<const float*>(a.pointwise);
  const int64_t step = round_up(a.inputs, kLanes), wide = round_up(a.outputs, kLanes);
  const std::vector<float> half = padded(a.haar_style, a.haar_style ? a.n : 0, 4 * a.inputs, 4 * a.inputs, 0.5f);
  const std::vector<float> bias = padded(a.bias, 1, a.outputs, wide);
  const std::vector<float> next = padded(a.next_style, a.next_style ? a.n : 0, a.outputs, wide);
  std::vector<float> depthwise(a.depthwise ? a.n * 9 * step : 0);
  if (a.depthwise)
    for (int64_t n = 0; n < a.n; ++n)
      pack_depthwise(static_cast<const float*>(a.depthwise), style + n * a.inputs, a.inputs, step, false,
                     depthwise.data() + n * 9 * step);
  // where there is no depthwise convolution, the style goes into the matrix
  const int64_t copies = a.depthwise ? 1 : a.n, panels = panel_count(a.outputs);
  static thread_local Scratch scratch;
  float* packed = scratch.take(copies * packed_size(a.inputs, a.outputs));
  gf::parallel_for(0, copies * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      pack_transposed(pointwise, a.depthwise ? nullptr : style + i / panels * a.inputs, a.inputs, a.outputs,
                      i % panels, packed + i / panels * packed_size(a.inputs, a.outputs));
  });
  const int64_t group = std::clamp<int64_t>(kLeastPixels / a.w, 1, a.h);
  const int64_t strips = std::clamp<int64_t>(a.h / group, 1, kTasks);
  const int64_t splits = std::clamp<int64_t>(kTasks / (a.n * strips), 1, panels);
  const bool stream = a.nhwc && a.outputs % kLanes == 0 && reinterpret_cast<uintptr_t>(a.y) % sizeof(vec) == 0 &&
                      a.n * a.outputs * a.h * a.w >= kStreamFloats;
  const Forward forward{a,
                        {static_cast<const float*>(a.x), a.haar_style ? half.data() : nullptr, a.nhwc != 0, a.n,
                         a.inputs, a.h, a.w},
                        packed, depthwise.data(), bias.data(), a.next_style ? next.data() : nullptr, wide, group,
                        strips, splits, stream};
  gf::parallel_for(0, a.n * strips * splits, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) forward.strip(i / splits / strips, i / splits % strips, i % splits);
  });
  return GF_OK;
}
GF_CPU_ENTRY(gf_separable_conv2d_cpu, gf_separable_conv2d)
