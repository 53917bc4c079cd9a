// Native CPU path of separable_conv2d's gradients: per strip of rows, what lies between the convolutions stays cached.
#include <algorithm>
#include <vector>

#include "guide_fast/separable_conv2d.h"
#include "isa.h"
#include "parallel.h"
#include "separable_conv2d_rows.h"

namespace {

constexpr int64_t kTasks = 8;          // wanted for any number of threads
constexpr int64_t kStripRows = 32;     // a strip computes t of the two rows around it again
constexpr int64_t kLeastPixels = 64;   // of a group of rows
constexpr int64_t kStreamFloats = 4 << 20;  // of gx: more than a cache holds until the next layer

// Sums over the pixels of one strip, one after another; added up at the end in the order of strips.
struct Partial {
  int64_t pointwise, depthwise, style, bias, size;  // offsets

  Partial(const gf_separable_conv2d_backward& a, int64_t step) {
    pointwise = 0;
    depthwise = pointwise + (a.gpointwise ? a.outputs * step : 0);
    style = depthwise + (a.gdepthwise ? 9 * step : 0);
    bias = style + (a.gstyle || a.ghaar_style ? (a.haar_style ? 4 : 1) * step : 0);
    size = bias + (a.gbias ? round_up(a.outputs, kLanes) : 0);
  }
};

// What all tasks read.
struct Plan {
  const gf_separable_conv2d_backward& a;
  UpRows::Source source;
  const float* packed;    // the pointwise matrix in panels of inputs
  const float* forward;   // [n][9][step], with style
  const float* turned;    // [9][step], flipped, without
  const float* factor;    // of gx: [n][step], with a wavelet [n][4 inputs]
  const float* style;     // [n][step]
  float* partial;         // [n * strips][Partial::size]
  float* noise;           // [n][h][w], or NULL
  Partial offsets;
  int64_t step, group, strips, splits;
  bool stream;  // gx past the caches
};

// One strip of rows of one image, one range of input channels.
class Task {
 public:
  Task(const Plan& plan, int64_t index)
      : plan_(plan),
        a_(plan.a),
        image_(index / plan.splits / plan.strips),
        owner_(index % plan.splits == 0),
        weights_(a_.gpointwise || a_.gdepthwise),
        up_(plan.source, image_, a_.haar_style ? 4 : 2 * plan.group + 6) {
    const int64_t strip = index / plan.splits % plan.strips, split = index % plan.splits;
    const int64_t unit = a_.haar_style ? 2 : 1, units = a_.h / unit, panels = panel_count(a_.inputs);
    begin_ = unit * (units * strip / plan.strips), end_ = unit * (units * (strip + 1) / plan.strips);
    first_panel_ = panels * split / plan.splits, last_panel_ = panels * (split + 1) / plan.splits;
    first_ = panel_at(first_panel_, a_.inputs).first;
    last_ = last_panel_ == panels ? a_.inputs : panel_at(last_panel_, a_.inputs).first;
    width_ = round_up(last_ - first_, kLanes);
    sums_ = plan.partial + (image_ * plan.strips + strip) * plan.offsets.size;
  }

  void run() {
    const int64_t halo = a_.depthwise ? 1 : 0, pixels = plan_.group * a_.w;
    const int64_t ring = plan_.group + 3;
    g_step_ = round_up(a_.outputs, kLanes) + kLanes;
    const int64_t g_size = std::max<int64_t>(pixels, kMaxPixels) * g_step_, row = a_.w * width_;
    const int64_t v_size = a_.gpointwise ? pixels * width_ : 0;
    const int64_t lines = a_.haar_style ? 2 * a_.w * a_.inputs * 2 : 2 * a_.w * width_;
    static thread_local Scratch scratch;
    float* memory = scratch.take(g_size + v_size + (ring + 3) * row + lines + up_.floats());
    g_ = memory, v_ = g_ + g_size, ring_ = v_ + v_size, zeros_ = ring_ + ring * row, r_ = zeros_ + row;
    line_ = r_ + 2 * row, capacity_ = ring;
    std::fill(zeros_, zeros_ + row, 0.f);
    if (pixels < kMaxPixels) std::fill(g_, g_ + g_size, 0.f);
    up_.begin(line_ + lines, begin_ - halo);
    made_ = std::max<int64_t>(0, begin_ - halo), wanted_ = std::min(a_.h, end_ + halo);
    const int64_t unit = a_.haar_style ? 2 : 1;
    for (int64_t y = begin_; y < end_; y += unit) {
      while (made_ < std::min(wanted_, y + unit + halo)) make_group();
      for (int64_t i = 0; i < unit; ++i) between(y + i, r_ + i * row);
      if (!a_.gx && !a_.gstyle && !a_.ghaar_style) continue;
      a_.haar_style ? through_wavelet(y / 2) : through_style(y);
    }
    if (plan_.stream) store_fence();
  }

 private:
  const float* t_row(int64_t y) const {
    return y < 0 || y >= a_.h ? zeros_ : ring_ + y % capacity_ * a_.w * width_;
  }

  // g, then t = P^T g of the next group of rows
  void make_group() {
    const int64_t count = std::min(plan_.group, wanted_ - made_), w = a_.w;
    for (int64_t i = 0; i < count; ++i) make_g(made_ + i, g_ + i * w * g_step_);
    const Soon soon = read_after(made_ + count);
    for (int64_t p = first_panel_; p < last_panel_; ++p) {
      const Panel panel = panel_at(p, a_.inputs);
      const int64_t pixels = count * w, at = panel.first - first_, width = width_, cap = capacity_, made = made_;
      const bool one = count == 1;
      float* ring = ring_;
      product({g_, g_step_, 1, plan_.packed + panel.first * a_.outputs, panel.wide * kLanes, pixels, a_.outputs},
              panel.wide, p == first_panel_ ? soon : Soon{}, [=](int64_t pixel, int q, vec sum) __attribute__((always_inline)) {
                if (pixel >= pixels) return;
                const int64_t row = one ? 0 : pixel / w;
                float* line = ring + (made + row) % cap * w * width;
                store_vec(line + (pixel - row * w) * width + at + q * kLanes, sum);
              });
    }
    made_ += count;
    if (weights_) add_weights(made_ - count, count);
  }

  // What the next group of rows reads of gy and y, and the rows of x that lie beside it.
  Soon read_after(int64_t row) const {
    const int64_t count = std::min(plan_.group, wanted_ - row), line = a_.w * a_.outputs;
    if (!a_.nhwc || count <= 0) return {};
    const int64_t at = (image_ * a_.h + row) * line;
    Soon soon = up_.soon(row - 1, count);
    for (int i = 1; i < 3; ++i) soon.floats[i] = count * line;
    soon.at[1] = static_cast<const float*>(a_.gy) + at, soon.at[2] = static_cast<const float*>(a_.y) + at;
    return soon;
  }

  void make_g(int64_t y, float* g) {
    const bool own = owner_ && y >= begin_ && y < end_;
    float* bias = own && a_.gbias ? sums_ + plan_.offsets.bias : nullptr;
    float* noise = own && plan_.noise ? plan_.noise + (image_ * a_.h + y) * a_.w : nullptr;
    const float below = a_.gain * (a_.activation == GF_LRELU ? a_.slope : 1.f);
    const int64_t c_step = a_.nhwc ? 1 : a_.h * a_.w;
    for (int64_t j = 0; j < a_.w; ++j) {
      const int64_t at = a_.nhwc ? ((image_ * a_.h + y) * a_.w + j) * a_.outputs
                                 : (image_ * a_.outputs * a_.h + y) * a_.w + j;
      const float *in = static_cast<const float*>(a_.gy) + at, *out = static_cast<const float*>(a_.y) + at;
      float* to = g + j * g_step_;
      int64_t c = 0;
      vec total{};
      if (a_.nhwc)
        for (; c + kLanes <= a_.outputs; c += kLanes) {
          const vec y_ = load_vec(out + c);
          vec value = load_vec(in + c) * (y_ < 0 ? fill_vec(below) : fill_vec(a_.gain));
          if (a_.clamp >= 0) value = (y_ >= a_.clamp) | (y_ <= -a_.clamp) ? vec{} : value;
          store_vec(to + c, value);
          if (bias) store_vec(bias + c, load_vec(bias + c) + value);
          if (noise) total += value;
        }
      float rest = 0;
      for (; c < a_.outputs; ++c) {
        const float y_ = out[c * c_step], value = in[c * c_step] * (y_ < 0 ? below : a_.gain);
        to[c] = a_.clamp >= 0 && (y_ >= a_.clamp || y_ <= -a_.clamp) ? 0.f : value;
        if (bias) bias[c] += to[c];
        rest += to[c];
      }
      if (noise) {
        for (int i = 0; i < kLanes; ++i) rest += total[i];
        noise[j] = rest;
      }
    }
  }

  // gP += g^T v and the sums behind gD, over the rows of the group that belong to the strip
  void add_weights(int64_t row, int64_t count) {
    const int64_t from = std::max(row, begin_), to = std::min(row + count, end_), w = a_.w;
    for (int64_t y = from; y < to; ++y) {
      const float *above = up_.row(y - 1), *here = up_.row(y), *below = up_.row(y + 1);
      const float* const rows[3] = {above + first_, here + first_, below + first_};
      if (a_.gdepthwise) add_depthwise(rows, t_row(y));
      if (!a_.gpointwise) continue;
      float* v = v_ + (y - from) * w * width_;
      if (a_.depthwise) {
        depthwise_row(rows, plan_.step, w, width_, plan_.forward + image_ * 9 * plan_.step + first_, plan_.step, v,
                      width_);
      } else {
        for (int64_t j = 0; j < w; ++j)
          for (int64_t c = 0; c < width_; ++c)
            v[j * width_ + c] = rows[1][j * plan_.step + c] * plan_.style[image_ * plan_.step + first_ + c];
      }
    }
    if (!a_.gpointwise || from >= to) return;
    for (int64_t p = first_panel_; p < last_panel_; ++p) {
      const Panel panel = panel_at(p, a_.inputs);
      float* sums = sums_ + plan_.offsets.pointwise + panel.first;
      const int64_t step = plan_.step, outputs = a_.outputs;
      product({g_ + (from - row) * w * g_step_, 1, g_step_, v_ + panel.first - first_, width_, outputs, (to - from) * w},
              panel.wide, Soon{}, [=](int64_t o, int q, vec sum) __attribute__((always_inline)) {
                if (o >= outputs) return;
                float* at = sums + o * step + q * kLanes;
                store_vec(at, load_vec(at) + sum);
              });
    }
  }

  void add_depthwise(const float* const (&rows)[3], const float* t) {
    float* sums = sums_ + plan_.offsets.depthwise + first_;
    for (int64_t c = 0; c < width_; c += kLanes)
      for (int r = 0; r < 3; ++r) {
        vec total[3];
        for (int k = 0; k < 3; ++k) total[k] = load_vec(sums + (3 * r + k) * plan_.step + c);
        const float* u = rows[r] + c;
        vec left{}, middle = load_vec(u);
        for (int64_t j = 0; j < a_.w; ++j) {
          const vec right = j + 1 < a_.w ? load_vec(u + (j + 1) * plan_.step) : vec{};
          const vec value = load_vec(t + j * width_ + c);
          total[0] += value * left, total[1] += value * middle, total[2] += value * right;
          left = middle, middle = right;
        }
        for (int k = 0; k < 3; ++k) store_vec(sums + (3 * r + k) * plan_.step + c, total[k]);
      }
  }

  // r of one row: the gradient of style * u
  void between(int64_t y, float* r) {
    if (!a_.depthwise) return (void)std::copy_n(t_row(y), a_.w * width_, r);
    const float* const rows[3] = {t_row(y - 1), t_row(y), t_row(y + 1)};
    depthwise_row(rows, width_, a_.w, width_, plan_.turned + first_, plan_.step, r, width_);
  }

  void through_style(int64_t y) {
    const float* factor = plan_.factor + image_ * plan_.step + first_;
    float* sums = a_.gstyle ? sums_ + plan_.offsets.style + first_ : nullptr;
    const float* x = sums ? up_.row(y) + first_ : nullptr;
    float* gx = static_cast<float*>(a_.gx);
    const bool direct = gx && a_.nhwc && (last_ - first_) % kLanes == 0;
    float* to = direct ? gx + ((image_ * a_.h + y) * a_.w) * a_.inputs + first_ : line_;
    const int64_t to_step = direct ? a_.inputs : width_;
    for (int64_t j = 0; j < a_.w; ++j)
      for (int64_t c = 0; c < width_; c += kLanes) {
        const vec r = load_vec(r_ + j * width_ + c);
        if (plan_.stream && direct)
          stream_vec(to + j * to_step + c, r * load_vec(factor + c));
        else if (gx)
          store_vec(to + j * to_step + c, r * load_vec(factor + c));
        if (sums) store_vec(sums + c, load_vec(sums + c) + r * load_vec(x + j * plan_.step + c));
      }
    if (gx && !direct)
      store_row(gx, a_.nhwc, a_.inputs, a_.h, a_.w, image_, y, first_, last_ - first_, line_, width_);
  }

  void through_wavelet(int64_t row) {
    const int64_t h = a_.h / 2, w = a_.w / 2, bands = 4 * a_.inputs, count = last_ - first_;
    const float *x = static_cast<const float*>(a_.x) + (image_ * h + row) * w * bands, *top = r_;
    float* gx = static_cast<float*>(a_.gx);
    float* to = gx ? gx + (image_ * h + row) * w * bands : nullptr;
    float* sums = a_.gstyle || a_.ghaar_style ? sums_ + plan_.offsets.style + 4 * first_ : nullptr;
    if (!a_.nhwc) {
      if (sums) load_row(static_cast<const float*>(a_.x), false, bands, h, w, image_, row, line_, bands);
      x = line_, to = gx ? line_ + w * bands : nullptr;
    }
    for (int64_t j = 0; j < w; ++j) {
      const int64_t at = j * bands + 4 * first_;
      analyse(top + 2 * j * width_, top + (a_.w + 2 * j) * width_, width_,
              plan_.factor + image_ * bands + 4 * first_, count, sums ? x + at : nullptr, to ? to + at : nullptr, sums, plan_.stream);
    }
    if (gx && !a_.nhwc)
      store_row(gx, false, bands, h, w, image_, row, 4 * first_, 4 * count, line_ + w * bands + 4 * first_, bands);
  }

  const Plan& plan_;
  const gf_separable_conv2d_backward& a_;
  int64_t image_;
  bool owner_, weights_;
  UpRows up_;
  int64_t begin_, end_, first_panel_, last_panel_, first_, last_, width_;  // rows, channels
  int64_t g_step_ = 0, made_ = 0, wanted_ = 0, capacity_ = 0;
  float *g_ = nullptr, *v_ = nullptr, *ring_ = nullptr, *zeros_ = nullptr, *r_ = nullptr, *line_ = nullptr;
  float* sums_;
};

// The sums of strips [from, to) in their order.
float total(const float* at, int64_t from, int64_t to, int64_t size) {
  float sum = 0;
  for (int64_t i = from; i < to; ++i) sum += at[i * size];
  return sum;
}

void reduce_styles(const Plan& plan) {
  const auto& a = plan.a;
  const float* styles = static_cast<const float*>(a.style);
  for (int64_t n = 0; n < a.n; ++n)
    for (int64_t c = 0; c < a.inputs; ++c) {
      const int64_t from = n * plan.strips, to = from + plan.strips, at = n * a.inputs + c;
      const float* sums = plan.partial + plan.offsets.style;
      if (!a.haar_style) {
        a.gstyle[at] = total(sums + c, from, to, plan.offsets.size);
        continue;
      }
      float gstyle = 0;
      for (int64_t k = 4 * c; k < 4 * c + 4; ++k) {
        const float q = 0.5f * total(sums + k, from, to, plan.offsets.size);
        if (a.ghaar_style) a.ghaar_style[n * 4 * a.inputs + k] = styles[at] * q;
        gstyle += static_cast<const float*>(a.haar_style)[n * 4 * a.inputs + k] * q;
      }
      if (a.gstyle) a.gstyle[at] = gstyle;
    }
}

void reduce(const Plan& plan) {
  const auto& a = plan.a;
  const int64_t all = a.n * plan.strips, size = plan.offsets.size;
  if (a.gstyle || a.ghaar_style) reduce_styles(plan);
  if (a.gbias)
    for (int64_t o = 0; o < a.outputs; ++o) a.gbias[o] = total(plan.partial + plan.offsets.bias + o, 0, all, size);
  if (a.gdepthwise)
    for (int64_t c = 0; c < a.inputs; ++c)
      for (int64_t k = 0; k < 9; ++k) {
        float sum = 0;
        for (int64_t n = 0; n < a.n; ++n)
          sum += plan.style[n * plan.step + c] * total(plan.partial + plan.offsets.depthwise + k * plan.step + c,
                                                       n * plan.strips, (n + 1) * plan.strips, size);
        a.gdepthwise[9 * c + k] = sum;
      }
  if (a.gpointwise)
    gf::parallel_for(0, a.outputs, 16, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        float* to = a.gpointwise + o * a.inputs;
        std::fill(to, to + a.inputs, 0.f);
        for (int64_t i = 0; i < all; ++i) {
          const float* from = plan.partial + i * size + plan.offsets.pointwise + o * plan.step;
          for (int64_t c = 0; c < a.inputs; ++c) to[c] += from[c];
        }
      }
    });
  if (a.gnoise && plan.noise != a.gnoise)
    for (int64_t p = 0; p < a.h * a.w; ++p) a.gnoise[p] = total(plan.noise + p, 0, a.n, a.h * a.w);
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_separable_conv2d_backward_cpu)(const gf_separable_conv2d_backward* arguments) {
  const gf_separable_conv2d_backward& a = *arguments;
  if (a.dtype != GF_FLOAT32)
    return gf_fail(GF_INVALID, "dtype %d is not known to separable_conv2d on the CPU; convert to float32", int(a.dtype));
  const float* pointwise = static_cast<const float*>(a.pointwise);
  const float* depthwise = static_cast<const float*>(a.depthwise);
  const int64_t step = round_up(a.inputs, kLanes), bands = 4 * a.inputs, panels = panel_count(a.inputs);
  const std::vector<float> style = padded(a.style, a.n, a.inputs, step);
  std::vector<float> half = padded(a.haar_style, a.haar_style ? a.n : 0, bands, bands, 0.5f);
  std::vector<float> factor = a.haar_style ? half : style;
  if (a.haar_style)
    for (size_t i = 0; i < factor.size(); ++i) factor[i] *= static_cast<const float*>(a.style)[i / 4];
  std::vector<float> with_style(depthwise ? a.n * 9 * step : 0), turned(depthwise ? 9 * step : 0);
  if (depthwise) {
    pack_depthwise(depthwise, nullptr, a.inputs, step, true, turned.data());
    for (int64_t n = 0; n < a.n; ++n)
      pack_depthwise(depthwise, style.data() + n * step, a.inputs, step, false, with_style.data() + n * 9 * step);
  }
  static thread_local Scratch scratch;
  float* packed = scratch.take(packed_size(a.outputs, a.inputs));
  gf::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pack(pointwise, a.outputs, a.inputs, i, packed);
  });
  const int64_t group = std::clamp<int64_t>(kLeastPixels / a.w, 1, a.h), strips = std::clamp<int64_t>(a.h / kStripRows, 1, 16);
  const int64_t splits = std::clamp<int64_t>(kTasks / (a.n * strips), 1, panels);
  const Partial offsets(a, step);
  std::vector<float> partial(a.n * strips * offsets.size, 0.f);
  std::vector<float> noise(a.gnoise && a.noise_n != a.n ? a.n * a.h * a.w : 0);
  const bool stream = a.nhwc && a.inputs % kLanes == 0 && reinterpret_cast<uintptr_t>(a.gx) % sizeof(vec) == 0 &&
                      a.n * a.inputs * a.h * a.w >= kStreamFloats;
  const Plan plan{a,
                  {static_cast<const float*>(a.x), a.haar_style ? half.data() : nullptr, a.nhwc != 0, a.n, a.inputs,
                   a.h, a.w},
                  packed, with_style.data(), turned.data(), factor.data(), style.data(), partial.data(),
                  noise.empty() ? a.gnoise : noise.data(), offsets, step, group, strips, splits, stream};
  gf::parallel_for(0, a.n * strips * splits, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) Task(plan, i).run();
  });
  reduce(plan);
  return GF_OK;
}
GF_CPU_ENTRY(gf_separable_conv2d_backward_cpu, gf_separable_conv2d_backward)
