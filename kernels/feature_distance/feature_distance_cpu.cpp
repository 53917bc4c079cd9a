// Native CPU path of feature_distance: a block of pixels stays in the cache from the lengths to the result.
#include "dispatch_dtype.h"
#include "feature_distance.cuh"
#include "isa.h"
#include "lanes.h"
#include "parallel.h"

namespace {

template <class T>
struct Map {
  const T *a, *b;
  T *ga, *gb;
  const float* weight;
  int64_t channels, pixels;

  Map(const gf_feature_tap& tap, int64_t n) : weight(tap.weight), channels(tap.channels), pixels(tap.pixels) {
    const int64_t offset = n * channels * pixels;
    a = static_cast<const T*>(tap.a) + offset;
    b = static_cast<const T*>(tap.b) + (tap.shared ? 0 : offset);
    ga = tap.ga ? static_cast<T*>(tap.ga) + offset : nullptr;
    gb = tap.gb ? static_cast<T*>(tap.gb) + offset : nullptr;
  }
  float w(int64_t channel) const { return weight ? weight[channel] : 1.f; }
};

GF_LANES_INLINE lanes weights(const float* weight, int64_t count) {
  return weight ? load_lanes(weight, count) : lanes{} + 1.f;
}

// NHWC: one pixel, channels side by side. With `Forward` its distance, else its gradient for the slope g.
template <bool Forward, class T>
float pixel(const Map<T>& map, int64_t at, int normalised, float eps, float g) {
  const int64_t first = at * map.channels, channels = map.channels;
  const T* a = map.a + first;
  const T* b = map.b + first;
  lanes aa = {}, bb = {}, sum_a = {}, sum_b = {};
  for (int64_t c = 0; c < channels; c += kLanes) {
    const lanes x = load_lanes(a + c, channels - c), y = load_lanes(b + c, channels - c);
    aa += x * x;
    bb += y * y;
  }
  const float ra = gf::feature_inverse(sum_lanes(aa), eps);
  const float rb = normalised ? 1.f : gf::feature_inverse(sum_lanes(bb), eps);
  const float q = rb / ra;  // u - v = ra (a - q b): exactly 0 where a == b
  for (int64_t c = 0; c < channels; c += kLanes) {
    const lanes x = load_lanes(a + c, channels - c), y = load_lanes(b + c, channels - c), d = ra * (x - q * y);
    const lanes e = map.weight ? weights(map.weight + c, channels - c) * d : d;
    sum_a += (Forward ? d : x * ra) * e;
    if (!Forward) sum_b -= y * rb * e;
  }
  if (Forward) return sum_lanes(sum_a);
  const float along_a = sum_lanes(sum_a), along_b = normalised ? 0.f : sum_lanes(sum_b);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t left = channels - c;
    const lanes x = load_lanes(a + c, left), y = load_lanes(b + c, left), d = ra * (x - q * y);
    const lanes e = map.weight ? weights(map.weight + c, left) * d : d;
    if (map.ga) store_lanes(map.ga + first + c, (g * ra) * (e - x * (ra * along_a)), left);
    if (map.gb) store_lanes(map.gb + first + c, (g * rb) * (-e - y * (rb * along_b)), left);
  }
  return 0.f;
}

constexpr int kVectors = 4;  // of pixels at a time: their sums stay in registers
constexpr int kPixels = kVectors * kLanes;

// NCHW: up to kPixels neighbouring pixels, each a lane.
template <bool Forward, class T>
float pixels(const Map<T>& map, int64_t at, int64_t count, int normalised, float eps, float g) {
  lanes ra[kVectors] = {}, rb[kVectors] = {}, q[kVectors], sum_a[kVectors] = {}, sum_b[kVectors] = {};
  for (int64_t c = 0; c < map.channels; ++c)
    for (int k = 0; k < kVectors; ++k) {
      const int64_t i = at + c * map.pixels + k * kLanes, left = count - k * kLanes;
      const lanes x = load_lanes(map.a + i, left), y = load_lanes(map.b + i, left);
      ra[k] += x * x;
      rb[k] += y * y;
    }
  for (int k = 0; k < kVectors; ++k)
    for (int p = 0; p < kLanes; ++p) {
      ra[k][p] = gf::feature_inverse(ra[k][p], eps);
      rb[k][p] = normalised ? 1.f : gf::feature_inverse(rb[k][p], eps);
      q[k][p] = rb[k][p] / ra[k][p];
    }
  for (int64_t c = 0; c < map.channels; ++c)
    for (int k = 0; k < kVectors; ++k) {
      const int64_t i = at + c * map.pixels + k * kLanes, left = count - k * kLanes;
      const lanes x = load_lanes(map.a + i, left), y = load_lanes(map.b + i, left), d = ra[k] * (x - q[k] * y);
      const lanes e = map.w(c) * d;
      sum_a[k] += (Forward ? d : x * ra[k]) * e;
      if (!Forward) sum_b[k] -= y * rb[k] * e;
    }
  if (Forward) {
    float sum = 0.f;
    for (int k = 0; k < kVectors; ++k) sum += sum_lanes(sum_a[k]);
    return sum;
  }
  for (int64_t c = 0; c < map.channels; ++c)
    for (int k = 0; k < kVectors; ++k) {
      const int64_t i = at + c * map.pixels + k * kLanes, left = count - k * kLanes;
      const lanes x = load_lanes(map.a + i, left), y = load_lanes(map.b + i, left);
      const lanes e = (map.w(c) * ra[k]) * (x - q[k] * y);
      if (map.ga) store_lanes(map.ga + i, g * ra[k] * (e - x * ra[k] * sum_a[k]), left);
      if (map.gb) store_lanes(map.gb + i, g * rb[k] * (normalised ? -e : -e - y * rb[k] * sum_b[k]), left);
    }
  return 0.f;
}

template <bool Forward, class T>
float whole_block(const gf_feature_distance& args, const gf::feature_block& block, int64_t n) {
  const gf_feature_tap& tap = args.tap[block.tap];
  const Map<T> map(tap, n);
  const float share = tap.scale / float(tap.pixels), g = Forward ? 0.f : 2.f * args.gout[n] * share;
  float sum = 0.f;
  if (tap.nhwc)
    for (int64_t p = block.begin; p < block.end; ++p) sum += pixel<Forward>(map, p, args.normalised, args.eps, g);
  else
    for (int64_t p = block.begin; p < block.end; p += kPixels)
      sum += pixels<Forward>(map, p, block.end - p, args.normalised, args.eps, g);
  return sum * share;
}

template <bool Forward, class T>
void run(const gf_feature_distance& args) {
  const int64_t blocks = gf::feature_blocks(args);
  gf::parallel_for(0, args.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float share = whole_block<Forward, T>(args, gf::feature_block_at(args, i % blocks), i / blocks);
      if (Forward) args.partial[i] = share;
    }
  });
  if (!Forward) return;
  for (int64_t n = 0; n < args.batch; ++n) {
    double sum = 0;
    for (int64_t i = 0; i < blocks; ++i) sum += args.partial[n * blocks + i];
    args.out[n] = float(sum);
  }
}

gf_status refuses(const gf_feature_distance& a) {
  if (a.taps >= 1 && a.taps <= GF_FEATURE_TAPS) return GF_OK;
  return gf_fail(GF_INVALID, "feature_distance takes 1 to %d taps, not %d", int(GF_FEATURE_TAPS), a.taps);
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_feature_distance_cpu)(const gf_feature_distance* a) {
  if (const gf_status status = refuses(*a)) return status;
  GF_DISPATCH_DTYPE(a->dtype, T, run<true, T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_feature_distance_cpu, gf_feature_distance)

extern "C" gf_status GF_LOCAL(gf_feature_distance_backward_cpu)(const gf_feature_distance* a) {
  if (const gf_status status = refuses(*a)) return status;
  GF_DISPATCH_DTYPE(a->dtype, T, run<false, T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_feature_distance_backward_cpu, gf_feature_distance)
