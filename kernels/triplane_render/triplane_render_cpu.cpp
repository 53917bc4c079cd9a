// Native CPU path of triplane_render: the samples of one ray at a time, in the caches; sums in a fixed order.
#include "isa.h"
#include "parallel.h"
#include "triplane_render.cuh"
#include "triplane_render_vector.h"

namespace {

using namespace gf::triplane;

constexpr int kRaysPerTask = 16;
constexpr int kRaysPerPartial = 32;  // as the header says
constexpr int kRaysPerChunk = 1024;  // whose feature gradients wait to be added to the planes: 12 MB
constexpr int kMost = GF_TRIPLANE_MOST_SAMPLES + 2 * kRows;  // coarse, fine ones padded to whole blocks of rows

int padded(int samples) { return (samples + kRows - 1) / kRows * kRows; }

// The decoder, transposed for products of rows.
struct Decoder {
  const float *w1, *b1, *w2, *b2;       // as given
  Scratch w1t{kChannels * kHidden};     // [32, 64]
  Scratch w2t{kHidden * kColours};      // [64, 32], without the density's row

  explicit Decoder(const gf_triplane_scene& s)
      : w1(static_cast<const float*>(s.w1)), b1(static_cast<const float*>(s.b1)),
        w2(static_cast<const float*>(s.w2)), b2(static_cast<const float*>(s.b2)) {
    for (int j = 0; j < kHidden; ++j) {
      for (int c = 0; c < kChannels; ++c) w1t[c * kHidden + j] = w1[j * kChannels + c];
      for (int o = 0; o < kColours; ++o) w2t[j * kColours + o] = w2[(1 + o) * kHidden + j];
    }
  }
};

// What a thread keeps of the samples of its ray.
struct Samples {
  Scratch feature{kMost * kChannels}, hidden{kMost * kHidden}, slope{kMost * kHidden}, colour{kMost * kColours};
  Scratch sigma{kMost}, depth{kMost};
};

struct Ray {
  const gf_triplane_scene& scene;
  const float *origin, *direction, *planes;
  float scale;

  Ray(const gf_triplane_scene& s, int64_t index)
      : scene(s), origin(s.origins + index * 3), direction(s.directions + index * 3),
        planes(static_cast<const float*>(s.planes) + index / s.rays * s.stride_batch), scale(2 / s.box_warp) {}

  Cell cell(int plane, float depth) const {
    const auto at = [&](int axis) { return coordinate(origin[axis], direction[axis], depth, scale); };
    return cell_on_plane(plane, at(0), at(1), at(2), int(scene.width), int(scene.height));
  }

  // mean over the planes of `count` samples: [count, 32]
  void sample(const float* depth, int count, float* feature) const {
    // where first, so that texels are on their way before they are read
    constexpr int kAhead = 6;
    Place places[GF_TRIPLANE_MOST_SAMPLES][3];
    const int width = int(scene.width), height = int(scene.height);
    for (int i = 0; i < count; ++i)
      for (int plane = 0; plane < 3; ++plane) {
        Place& p = places[i][plane];
        p.cell = cell(plane, depth[i]);
        p.inside = p.cell.x >= 0 && p.cell.y >= 0 && p.cell.x < width - 1 && p.cell.y < height - 1;
        p.texel = planes + plane * scene.stride_plane + p.cell.y * scene.stride_y + p.cell.x * scene.stride_x;
      }
    for (int i = 0; i < count + kAhead; ++i) {
      if (i < count)
        for (const Place& p : places[i]) prefetch(p);
      if (i >= kAhead) mean_of(places[i - kAhead], feature + (i - kAhead) * kChannels);
    }
  }

 private:
  struct Place {
    Cell cell;
    bool inside;  // all four texels
    const float* texel;
  };

  void prefetch(const Place& p) const {
    if (!p.inside) return;
    for (int corner = 0; corner < 4; ++corner)
      for (int part = 0; part < kChannels; part += 16)  // a cache line
        __builtin_prefetch(p.texel + (corner >> 1) * scene.stride_y + (corner & 1) * scene.stride_x + part);
  }

  void mean_of(const Place (&places)[3], float* feature) const {
    constexpr int kVectors = kChannels / kLanes;
    vec sums[kVectors] = {};
    for (const Place& p : places)
      for (int corner = 0; corner < 4; ++corner) {
        const Cell& c = p.cell;
        const float weight = p.inside ? (corner & 1 ? c.fx : 1 - c.fx) * (corner >> 1 ? c.fy : 1 - c.fy)
                                      : corner_weight(c, corner, int(scene.width), int(scene.height));
        if (!p.inside && weight == 0) continue;
        const float* texel = p.texel + (corner >> 1) * scene.stride_y + (corner & 1) * scene.stride_x;
        for (int v = 0; v < kVectors; ++v) sums[v] += weight * load_vec(texel + v * kLanes);
      }
    for (int v = 0; v < kVectors; ++v) store_vec(feature + v * kLanes, sums[v] * (1 / 3.f));
  }
};

// Samples `from`.. of `count`: features, hidden units, raw density, colours before their widening.
template <bool Slopes>
void decode(const Ray& ray, const Decoder& d, Samples& s, int from, int count) {
  ray.sample(&s.depth[from], count, &s.feature[from * kChannels]);
  const int rows = padded(count);
  float* hidden = &s.hidden[from * kHidden];
  float* slope = &s.slope[from * kHidden];
  multiply<kChannels, kHidden>(&s.feature[from * kChannels], rows, d.w1t.data(), d.b1, hidden);
  for (int i = 0; i < count; ++i) {
    vec sum{};
    for (int j = i * kHidden; j < (i + 1) * kHidden; j += kLanes) {
      const Activated a = activate_vec(load_vec(hidden + j));
      store_vec(hidden + j, a.softplus);
      if (Slopes) store_vec(slope + j, a.slope);
      sum += a.softplus * load_vec(d.w2 + j - i * kHidden);
    }
    s.sigma[from + i] = sum_of(sum) + d.b2[0];
  }
  float* colour = &s.colour[from * kColours];
  multiply<kHidden, kColours>(hidden, rows, d.w2t.data(), d.b2 + 1, colour);
  for (int i = 0; i < count * kColours; i += kLanes) store_vec(colour + i, activate_vec(load_vec(colour + i)).slope);
}

// alpha of the intervals, a vector at a time; arrays have room for a vector more
void opacities(const float* depth, const float* sigma, int intervals, float* alpha) {
  for (int k = 0; k < intervals; k += kLanes) {
    const vec mean = (load_vec(sigma + k) + load_vec(sigma + k + 1)) * 0.5f - 1.f;
    const vec length = load_vec(depth + k + 1) - load_vec(depth + k);
    const vec x = activate_vec(mean).softplus * length;
    store_vec(alpha + k, opacity_of(x, exp_of(-x)));
  }
}

void forward(const gf_triplane_render& a, const Decoder& decoder, int64_t begin, int64_t end) {
  const gf_triplane_scene& scene = a.scene;
  const int coarse = a.coarse, fine = a.fine, count = coarse + fine, first = padded(coarse);
  const float* w_near = a.near_end;
  Samples s;
  Scratch weight(kMost + kLanes), alpha(kMost + kLanes), through(kMost), cdf(kMost);
  Scratch depth(kMost + kLanes), sigma(kMost + kLanes), unsorted(kMost);
  int source[GF_TRIPLANE_MOST_SAMPLES];
  for (int64_t index = begin; index < end; ++index) {
    const Ray ray(scene, index);
    // coarse samples
    for (int i = 0; i < coarse; ++i)
      s.depth[i] = unsorted[i] = coarse_depth(w_near[index], a.far_end[index], coarse, i,
                                              a.jitter ? a.jitter[index * coarse + i] : 0.5f);
    decode<false>(ray, decoder, s, 0, coarse);
    // fine samples where the weight is
    if (fine > 0) {
      for (int i = 0; i < coarse; ++i) depth[i] = s.depth[i], sigma[i] = s.sigma[i];
      opacities(depth.data(), sigma.data(), coarse - 1, alpha.data());
      transmittance(alpha.data(), coarse - 1, through.data());
      for (int k = 0; k < coarse - 1; ++k) weight[k] = alpha[k] * through[k];
      cumulate(weight.data(), coarse - 1, cdf.data());
      for (int i = 0; i < fine; ++i) {
        const float u = a.u ? a.u[index * fine + i] : float(i + 1) / float(fine + 1);
        s.depth[first + i] = unsorted[coarse + i] = quantile(depth.data(), cdf.data(), coarse - 2, u);
      }
      decode<false>(ray, decoder, s, first, fine);
    }
    // the union in order
    for (int i = 0; i < count; ++i) source[i] = -1;
    for (int i = 0; i < count; ++i) {
      const int place = rank_of(unsorted.data(), count, i), at = i < coarse ? i : first + i - coarse;
      source[place] = at, depth[place] = s.depth[at], sigma[place] = s.sigma[at];
    }
    opacities(depth.data(), sigma.data(), count - 1, alpha.data());
    transmittance(alpha.data(), count - 1, through.data());
    float total = 0, middle = 0;
    for (int k = 0; k < count - 1; ++k) {
      weight[k] = alpha[k] * through[k];
      total += weight[k];
      middle += weight[k] * (depth[k] + depth[k + 1]) * 0.5f;
    }
    // composite: a sample has half of the weight before it, half of that behind it
    vec sums[kColours / kLanes] = {};
    for (int i = 0; i < count; ++i) {
      if (source[i] < 0) continue;  // only where a limit is NaN
      const float half = ((i > 0 ? weight[i - 1] : 0) + (i < count - 1 ? weight[i] : 0)) * 0.5f;
      for (int v = 0; v < kColours / kLanes; ++v)
        sums[v] += half * (load_vec(&s.colour[source[i] * kColours] + v * kLanes) * (1 + 2 * kWiden) - kWiden);
    }
    float* features = static_cast<float*>(a.features) + index * kColours;
    for (int v = 0; v < kColours / kLanes; ++v)
      store_vec(features + v * kLanes, (sums[v] + (scene.white_back ? 1 - total : 0.f)) * 2.f - 1.f);
    a.depth[index] = total > 0 ? middle / total : total == 0 ? INFINITY : total;
    a.total[index] = total;
    std::memcpy(a.depths + index * count, depth.data(), count * sizeof(float));
  }
}

// Sums of a thread's decoder gradients: w1 [64, 32], w2 transposed [64, 32], the rest.
struct DecoderGradient {
  Scratch w1{kHidden * kChannels}, w2t{kHidden * kColours}, w2_density{kHidden}, b1{kHidden}, b2{1 + kColours};

  void write(float* row) const {
    std::memcpy(row, w1.data(), kB1 * sizeof(float));
    std::memcpy(row + kB1, b1.data(), kHidden * sizeof(float));
    std::memcpy(row + kW2, w2_density.data(), kHidden * sizeof(float));
    for (int o = 0; o < kColours; ++o)
      for (int j = 0; j < kHidden; ++j) row[kW2 + (1 + o) * kHidden + j] = w2t[j * kColours + o];
    std::memcpy(row + kB2, b2.data(), (1 + kColours) * sizeof(float));
  }
};

// Feature gradients of one ray's samples [samples, 32], a plane's share of them.
void backward_ray(const gf_triplane_render_backward& a, const Decoder& decoder, int64_t index, Samples& s,
                  float* gfeature, DecoderGradient* gdecoder) {
  const int count = a.samples, intervals = count - 1;
  float weight[kMost + kLanes], alpha[kMost + kLanes], through[kMost], terms[kMost], behind[kMost], pull[kMost];
  float toward[kMost], gsigma[kMost];
  std::memcpy(s.depth.data(), a.depths + index * count, count * sizeof(float));
  decode<true>(Ray(a.scene, index), decoder, s, 0, count);
  // march
  opacities(s.depth.data(), s.sigma.data(), intervals, alpha);
  transmittance(alpha, intervals, through);
  float total = 0, middle = 0, sum = 0;
  for (int k = 0; k < intervals; ++k) {
    weight[k] = alpha[k] * through[k];
    total += weight[k];
    middle += weight[k] * (s.depth[k] + s.depth[k + 1]) * 0.5f;
  }
  const float* g = static_cast<const float*>(a.gfeatures) + index * kColours;
  for (int o = 0; o < kColours; ++o) sum += g[o];
  const Pull p = pull_of(a.gtotal[index], a.gdepth[index], sum, total, a.scene.white_back);
  const float mean = total > 0 ? middle / total : 0;
  for (int i = 0; i < count; ++i) {
    vec dot{};
    for (int v = 0; v < kColours; v += kLanes)
      dot += load_vec(g + v) * (load_vec(&s.colour[i * kColours + v]) * (1 + 2 * kWiden) - kWiden);
    pull[i] = sum_of(dot);
  }
  for (int k = 0; k < intervals; ++k) {
    pull[k] += pull[k + 1] + p.all + p.along * ((s.depth[k] + s.depth[k + 1]) * 0.5f - mean);
    terms[k] = weight[k] * pull[k];
  }
  // reverse march
  suffix_sums(terms, intervals, behind);
  for (int k = 0; k < intervals; ++k)
    toward[k] = density_gradient(alpha[k], through[k], pull[k], behind[k], s.sigma[k], s.sigma[k + 1],
                                 s.depth[k + 1] - s.depth[k]);
  for (int i = 0; i < count; ++i) {
    gsigma[i] = ((i > 0 ? toward[i - 1] : 0) + (i < intervals ? toward[i] : 0)) * 0.5f;
    const float both = ((i > 0 ? weight[i - 1] : 0) + (i < intervals ? weight[i] : 0)) * (1 + 2 * kWiden);
    for (int v = 0; v < kColours; v += kLanes) {
      const vec c = load_vec(&s.colour[i * kColours + v]);
      store_vec(&s.colour[i * kColours + v], both * load_vec(g + v) * c * (1.f - c));
    }
  }
  // decoder, from its output to its input; the hidden units make room for their gradients when the weights have theirs
  if (gdecoder) {
    multiply_transposed<kHidden, kColours>(s.hidden.data(), s.colour.data(), count, gdecoder->w2t.data());
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < kHidden; ++j) gdecoder->w2_density[j] += gsigma[i] * s.hidden[i * kHidden + j];
      gdecoder->b2[0] += gsigma[i];
      for (int o = 0; o < kColours; ++o) gdecoder->b2[1 + o] += s.colour[i * kColours + o];
    }
  }
  multiply<kColours, kHidden>(s.colour.data(), padded(count), decoder.w2 + kHidden, nullptr, s.hidden.data());
  for (int i = 0; i < count; ++i)
    for (int j = 0; j < kHidden; j += kLanes) {
      const int at = i * kHidden + j;
      const vec grad = load_vec(&s.hidden[at]) + gsigma[i] * load_vec(decoder.w2 + j);
      store_vec(&s.hidden[at], grad * load_vec(&s.slope[at]));
    }
  if (gdecoder) {
    multiply_transposed<kHidden, kChannels>(s.hidden.data(), s.feature.data(), count, gdecoder->w1.data());
    for (int i = 0; i < count; ++i)
      for (int j = 0; j < kHidden; ++j) gdecoder->b1[j] += s.hidden[i * kHidden + j];
  }
  if (!gfeature) return;
  multiply<kHidden, kChannels>(s.hidden.data(), padded(count), decoder.w1, nullptr, s.feature.data());
  for (int i = 0; i < count * kChannels; i += kLanes) store_vec(gfeature + i, load_vec(&s.feature[i]) * (1 / 3.f));
}

// Adds one chunk of rays to half of the channels of one plane, in the order of the rays.
void scatter(const gf_triplane_render_backward& a, int64_t begin, int64_t end, int plane, int half,
             const float* gfeature) {
  constexpr int kHalf = kChannels / 2;
  const gf_triplane_scene& scene = a.scene;
  const int width = int(scene.width), height = int(scene.height);
  for (int64_t index = begin; index < end; ++index) {
    const Ray ray(scene, index);
    float* to = a.gplanes + ((index / scene.rays * 3 + plane) * height) * int64_t(width) * kChannels + half * kHalf;
    const float* from = gfeature + (index - begin) * a.samples * kChannels + half * kHalf;
    for (int i = 0; i < a.samples; ++i, from += kChannels) {
      const Cell c = ray.cell(plane, a.depths[index * a.samples + i]);
      for (int corner = 0; corner < 4; ++corner) {
        const float weight = corner_weight(c, corner, width, height);
        if (weight == 0) continue;
        float* texel = to + (int64_t(c.y + (corner >> 1)) * width + c.x + (corner & 1)) * kChannels;
        for (int v = 0; v < kHalf; v += kLanes)
          store_vec(texel + v, load_vec(texel + v) + weight * load_vec(from + v));
      }
    }
  }
}

void backward(const gf_triplane_render_backward& a, const Decoder& decoder) {
  const int64_t rays = a.scene.batch * a.scene.rays;
  const int64_t stride = int64_t(a.samples) * kChannels;
  const Scratch gfeature(a.gplanes ? (rays < kRaysPerChunk ? rays : kRaysPerChunk) * stride : 0);
  for (int64_t begin = 0; begin < rays; begin += kRaysPerChunk) {
    const int64_t end = begin + kRaysPerChunk < rays ? begin + kRaysPerChunk : rays;
    const int64_t groups = (end - begin + kRaysPerPartial - 1) / kRaysPerPartial;
    gf::parallel_for(0, groups, 1, [&](int64_t first, int64_t last) {
      Samples s;
      for (int64_t group = first; group < last; ++group) {
        const int64_t from = begin + group * kRaysPerPartial;
        const int64_t to = from + kRaysPerPartial < end ? from + kRaysPerPartial : end;
        DecoderGradient gdecoder;
        for (int64_t index = from; index < to; ++index)
          backward_ray(a, decoder, index, s, a.gplanes ? &gfeature[(index - begin) * stride] : nullptr,
                       a.partials ? &gdecoder : nullptr);
        if (a.partials) gdecoder.write(a.partials + from / kRaysPerPartial * GF_TRIPLANE_WEIGHTS);
      }
    });
    if (!a.gplanes) continue;
    gf::parallel_for(0, 6, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part)
        scatter(a, begin, end, int(part / 2), int(part % 2), gfeature.data());
    });
  }
}

gf_status check_cpu(const gf_triplane_scene& s) {
  if (s.dtype == GF_FLOAT32) return GF_OK;
  return gf_fail(GF_INVALID, "dtype %d is not known here; the CPU takes float32", int(s.dtype));
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_triplane_render_cpu)(const gf_triplane_render* a) {
  gf_status status = check_cpu(a->scene);
  if (status == GF_OK) status = check_render(*a);
  if (status != GF_OK) return status;
  const Decoder decoder(a->scene);
  gf::parallel_for(0, a->scene.batch * a->scene.rays, kRaysPerTask,
                   [&](int64_t begin, int64_t end) { forward(*a, decoder, begin, end); });
  return GF_OK;
}
GF_CPU_ENTRY(gf_triplane_render_cpu, gf_triplane_render)

extern "C" gf_status GF_LOCAL(gf_triplane_render_backward_cpu)(const gf_triplane_render_backward* a) {
  gf_status status = check_cpu(a->scene);
  if (status == GF_OK) status = check_scene(a->scene, a->samples);
  const int64_t rays = a->scene.batch * a->scene.rays;
  if (status == GF_OK && a->partials && a->rows != (rays + kRaysPerPartial - 1) / kRaysPerPartial)
    status = gf_fail(GF_INVALID, "rows is %lld; the CPU writes one for every %d rays", (long long)a->rows, kRaysPerPartial);
  if (status == GF_OK && (a->fixed || a->largest))
    status = gf_fail(GF_INVALID, "fixed-point sums are for a GPU; on the CPU gplanes is always the same");
  if (status != GF_OK) return status;
  backward(*a, Decoder(a->scene));
  return GF_OK;
}
GF_CPU_ENTRY(gf_triplane_render_backward_cpu, gf_triplane_render_backward)
