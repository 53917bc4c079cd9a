// Native CPU path of identity_loss: loss and gradient of a pair while its embeddings are in the cache.
#include <vector>

#include "dispatch_dtype.h"
#include "identity_loss.cuh"
#include "isa.h"
#include "parallel.h"

namespace {

constexpr int kLanes = 16;  // independent partial sums, which the compiler turns into one vector
constexpr int64_t kGrain = 1 << 13;

// Sums term(i, sum_0, ...) over i with kLanes partial sums each.
template <int Sums, class Term>
void reduce(int64_t width, float (&total)[Sums], const Term& term) {
  float part[Sums][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      float value[Sums];
      term(i + lane, value);
      for (int s = 0; s < Sums; ++s) part[s][lane] += value[s];
    }
  for (; i < width; ++i) {
    float value[Sums];
    term(i, value);
    for (int s = 0; s < Sums; ++s) part[s][i % kLanes] += value[s];
  }
  for (int s = 0; s < Sums; ++s) {
    total[s] = 0.f;
    for (int lane = 0; lane < kLanes; ++lane) total[s] += part[s][lane];
  }
}

template <class T>
float pair(const gf_identity_loss& args, int64_t row) {
  const T* a = static_cast<const T*>(args.a) + row * args.width;
  const T* b = static_cast<const T*>(args.b) + row * args.width;
  float lengths[2], sums[3];
  reduce(args.width, lengths, [&](int64_t i, float (&value)[2]) {
    const float x = gf::load(a[i]), y = gf::load(b[i]);
    value[0] = x * x;
    value[1] = y * y;
  });
  const gf::identity_lengths l = gf::identity_scale(lengths[0], lengths[1], args.normalise != 0, args.eps);
  reduce(args.width, sums, [&](int64_t i, float (&value)[3]) {
    const float u = gf::load(a[i]) * l.ra, v = gf::load(b[i]) * l.rb, e = u - v;
    value[0] = e * e;
    value[1] = u * e;
    value[2] = v * e;
  });
  const gf::identity_slope s = gf::identity_pair_slope(args.kind, l, sums[0], sums[1], sums[2]);
  if (args.da) {
    float* da = args.da + row * args.width;
    for (int64_t i = 0; i < args.width; ++i) {
      const float u = gf::load(a[i]) * l.ra, v = gf::load(b[i]) * l.rb;
      da[i] = args.scale * l.ra * (s.k * (u - v) - s.pa * u);
    }
  }
  if (args.db) {
    float* db = args.db + row * args.width;
    for (int64_t i = 0; i < args.width; ++i) {
      const float u = gf::load(a[i]) * l.ra, v = gf::load(b[i]) * l.rb;
      db[i] = -args.scale * l.rb * (s.k * (u - v) + s.pb * v);
    }
  }
  return args.scale * gf::identity_pair_loss(args.kind, l, lengths[0], lengths[1], sums[0]);
}

template <class T>
void forward(const gf_identity_loss& a) {
  std::vector<float> of_row(a.reduce ? a.rows : 0);
  float* loss = a.reduce ? of_row.data() : a.loss;
  gf::parallel_for(0, a.rows, 1 + kGrain / a.width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) loss[row] = pair<T>(a, row);
  });
  if (!a.reduce) return;
  double sum = 0;
  for (const float value : of_row) sum += value;
  *a.loss = float(sum);
}

}  // namespace

extern "C" gf_status GF_LOCAL(gf_identity_loss_cpu)(const gf_identity_loss* a) {
  if (a->rows == 0 || a->width == 0) return gf_fail(GF_INVALID, "identity_loss has no embeddings to compare");
  GF_DISPATCH_DTYPE(a->dtype, T, forward<T>(*a));
  return GF_OK;
}
GF_CPU_ENTRY(gf_identity_loss_cpu, gf_identity_loss)
