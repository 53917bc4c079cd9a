// Native CPU path of identity_loss: loss and gradient of a pair while its embeddings are in the cache.
#include <vector>

#include "dispatch_dtype.h"
#include "identity_loss.cuh"
#include "isa.h"
#include "lanes.h"
#include "parallel.h"

namespace {

constexpr int64_t kGrain = 1 << 13;

template <class T>
float pair(const gf_identity_loss& args, int64_t row) {
  const T* a = static_cast<const T*>(args.a) + row * args.width;
  const T* b = static_cast<const T*>(args.b) + row * args.width;
  lanes aa = {}, bb = {}, ee = {}, ue = {}, ve = {};
  for (int64_t i = 0; i < args.width; i += kLanes) {
    const lanes x = load_lanes(a + i, args.width - i), y = load_lanes(b + i, args.width - i);
    aa += x * x;
    bb += y * y;
  }
  const float square_a = sum_lanes(aa), square_b = sum_lanes(bb);
  const gf::identity_lengths l = gf::identity_scale(square_a, square_b, args.normalise != 0, args.eps);
  for (int64_t i = 0; i < args.width; i += kLanes) {
    const lanes x = load_lanes(a + i, args.width - i), y = load_lanes(b + i, args.width - i);
    const lanes e = l.ra * (x - l.q * y);
    ee += e * e;
    ue += x * l.ra * e;
    ve += y * l.rb * e;
  }
  const float square = sum_lanes(ee);
  if (args.da || args.db) {
    const gf::identity_slope s = gf::identity_pair_slope(args.kind, l, square, sum_lanes(ue), sum_lanes(ve));
    for (int64_t i = 0; i < args.width; i += kLanes) {
      const int64_t left = args.width - i;
      const lanes x = load_lanes(a + i, left), y = load_lanes(b + i, left), e = (s.k * l.ra) * (x - l.q * y);
      if (args.da) store_lanes(args.da + row * args.width + i, (args.scale * l.ra) * (e - (s.pa * l.ra) * x), left);
      if (args.db) store_lanes(args.db + row * args.width + i, (-args.scale * l.rb) * (e + (s.pb * l.rb) * y), left);
    }
  }
  return args.scale * gf::identity_pair_loss(args.kind, l, square_a, square_b, square);
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
