// Refuses sizes below zero, pointers that are NULL, bands that leave their image; an empty batch is done at once.
#include "arguments.h"

#include <cstring>
#include <initializer_list>

namespace gf {
namespace {

constexpr Verdict kRun{true, GF_OK};
constexpr Verdict kDone{false, GF_OK};

struct Size {
  const char* name;
  int64_t value;
};

struct Pointer {
  const char* name;
  const void* at;
  bool needed = true;
};

Verdict refuse(gf_status status) { return {false, status}; }

Verdict no_arguments(const char* door) {
  return refuse(gf_fail(GF_INVALID, "%s has no arguments: the pointer is NULL; give the address of its struct", door));
}

bool reads_memory(const char* door) { return std::strstr(door, "_cuda") == nullptr; }

Verdict judge_all(const char* door, int64_t batch, std::initializer_list<Size> sizes,
                  std::initializer_list<Pointer> pointers) {
  for (const Size& size : sizes)
    if (size.value < 0)
      return refuse(gf_fail(GF_INVALID, "%s has %s = %lld; a size is not negative", door, size.name,
                            static_cast<long long>(size.value)));
  if (batch == 0) return kDone;
  for (const Size& size : sizes)
    if (size.value == 0) return refuse(gf_fail(GF_INVALID, "%s has %s = 0; it takes at least 1", door, size.name));
  for (const Pointer& pointer : pointers)
    if (pointer.needed && pointer.at == nullptr)
      return refuse(gf_fail(GF_INVALID, "%s has %s = NULL; give its address", door, pointer.name));
  return kRun;
}

// Every band stays inside the input; those with a weight never go down.
Verdict judge_band(const char* door, const char* name, const gf_axis& axis) {
  int64_t before = 0;
  for (int64_t row = 0; row < axis.out; ++row) {
    const int64_t start = axis.start[row];
    if (start < 0 || start + axis.taps > axis.in)
      return refuse(gf_fail(GF_INVALID, "%s has %s.start[%lld] = %lld; with %lld taps it is 0 to %lld", door, name,
                            static_cast<long long>(row), static_cast<long long>(start),
                            static_cast<long long>(axis.taps), static_cast<long long>(axis.in - axis.taps)));
    bool weighs = false;
    for (int64_t tap = 0; tap < axis.taps && !weighs; ++tap) weighs = axis.weight[tap * axis.out + row] != 0.f;
    if (!weighs) continue;
    if (start < before)
      return refuse(gf_fail(GF_INVALID, "%s has %s.start[%lld] = %lld; starts never go down, %lld is before it", door,
                            name, static_cast<long long>(row), static_cast<long long>(start),
                            static_cast<long long>(before)));
    before = start;
  }
  return kRun;
}

// No images, or images without rays, are done at once.
Verdict judge_scene(const gf_triplane_scene& s, const char* door, std::initializer_list<Pointer> others) {
  const Verdict scene = judge_all(door, s.batch * s.rays,
                                  {{"batch", s.batch},
                                   {"rays", s.rays},
                                   {"height", s.height},
                                   {"width", s.width}},
                                  {{"planes", s.planes},
                                   {"origins", s.origins},
                                   {"directions", s.directions},
                                   {"w1", s.w1},
                                   {"b1", s.b1},
                                   {"w2", s.w2},
                                   {"b2", s.b2}});
  return scene.run ? judge_all(door, 1, {}, others) : scene;
}

}  // namespace

Verdict judge(const gf_bias_act* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->outer, {{"outer", a->outer}, {"channels", a->channels}, {"inner", a->inner}},
                   {{"x", a->x}, {"y", a->y}});
}

Verdict judge(const gf_bias_act_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->outer, {{"outer", a->outer}, {"channels", a->channels}, {"inner", a->inner}},
                   {{"gy", a->gy}, {"y", a->y}, {"gx", a->gx}});
}

Verdict judge(const gf_face_crop* a, const char* door) {
  if (!a) return no_arguments(door);
  const Verdict sizes = judge_all(
      door, a->batch,
      {{"batch", a->batch},
       {"rows.in", a->rows.in},
       {"rows.out", a->rows.out},
       {"rows.taps", a->rows.taps},
       {"columns.in", a->columns.in},
       {"columns.out", a->columns.out},
       {"columns.taps", a->columns.taps}},
      {{"x", a->x},
       {"y", a->y},
       {"rows.start", a->rows.start},
       {"rows.weight", a->rows.weight},
       {"columns.start", a->columns.start},
       {"columns.weight", a->columns.weight}});
  if (!sizes.run) return sizes;
  for (const int32_t channel : a->source)
    if (channel < 0 || channel > 2)
      return refuse(gf_fail(GF_INVALID, "%s has a source channel %d; it is 0, 1 or 2", door, int(channel)));
  if (!reads_memory(door)) return kRun;
  const Verdict rows = judge_band(door, "rows", a->rows);
  return rows.run ? judge_band(door, "columns", a->columns) : rows;
}

Verdict judge(const gf_feature_distance* a, const char* door) {
  if (!a) return no_arguments(door);
  if (a->taps < 1 || a->taps > GF_FEATURE_TAPS)
    return refuse(gf_fail(GF_INVALID, "%s has taps = %d; it takes 1 to %d", door, a->taps, int(GF_FEATURE_TAPS)));
  const bool backward = std::strstr(door, "_backward") != nullptr;
  const Verdict whole = judge_all(
      door, a->batch, {{"batch", a->batch}},
      {{"gout", a->gout, backward}, {"partial", a->partial, !backward}, {"out", a->out, !backward}});
  if (!whole.run) return whole;
  for (int t = 0; t < a->taps; ++t) {
    const gf_feature_tap& tap = a->tap[t];
    const Verdict one = judge_all(door, 1, {{"channels of a tap", tap.channels}, {"pixels of a tap", tap.pixels}},
                                  {{"a of a tap", tap.a}, {"b of a tap", tap.b}});
    if (!one.run) return one;
  }
  return kRun;
}

Verdict judge(const gf_fused_adam* a, const char* door) {
  if (!a) return no_arguments(door);
  const Verdict whole = judge_all(door, a->chunks, {{"chunks", a->chunks}, {"chunk_size", a->chunk_size}},
                                  {{"chunk_tensor", a->chunk_tensor},
                                   {"chunk_start", a->chunk_start},
                                   {"size", a->size},
                                   {"parameter", a->parameter},
                                   {"gradient", a->gradient},
                                   {"exp_avg", a->exp_avg},
                                   {"exp_avg_sq", a->exp_avg_sq}});
  if (!whole.run || !reads_memory(door)) return whole;
  for (int64_t chunk = 0; chunk < a->chunks; ++chunk) {
    const int32_t t = a->chunk_tensor[chunk];
    if (t < 0)
      return refuse(gf_fail(GF_INVALID, "%s has chunk_tensor[%lld] = %d; it counts tensors from 0", door,
                            static_cast<long long>(chunk), int(t)));
    const int64_t start = a->chunk_start[chunk];
    if (start < 0 || start >= a->size[t])
      return refuse(gf_fail(GF_INVALID, "%s has chunk_start[%lld] = %lld; its tensor has %lld elements", door,
                            static_cast<long long>(chunk), static_cast<long long>(start),
                            static_cast<long long>(a->size[t])));
    const Verdict tensor = judge_all(door, 1, {},
                                     {{"a parameter", a->parameter[t]},
                                      {"a gradient", a->gradient[t]},
                                      {"an exp_avg", a->exp_avg[t]},
                                      {"an exp_avg_sq", a->exp_avg_sq[t]},
                                      {"a copy", a->copy ? a->copy[t] : nullptr, a->kind ? a->kind[t] >= 4 : a->copy != nullptr}});
    if (!tensor.run) return tensor;
  }
  return kRun;
}

Verdict judge(const gf_haar* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"channels", a->channels}, {"h", a->h}, {"w", a->w}},
                   {{"x", a->x}, {"y", a->y}});
}

Verdict judge(const gf_haar_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"channels", a->channels}, {"h", a->h}, {"w", a->w}},
                   {{"gy", a->gy}, {"x", a->x, a->gstyle != nullptr}});
}

Verdict judge(const gf_identity_loss* a, const char* door) {
  if (!a) return no_arguments(door);
  const int64_t batch = a->reduce ? 1 : a->rows;  // a sum over no pairs would have to be written
  return judge_all(door, batch, {{"rows", a->rows}, {"width", a->width}}, {{"a", a->a}, {"b", a->b}, {"loss", a->loss}});
}

Verdict judge(const gf_modulated_conv2d_weight* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, 1,
                   {{"out_channels", a->out_channels}, {"in_channels", a->in_channels}, {"kernel", a->kernel}},
                   {{"weight", a->weight}, {"packed", a->packed, !(a->power && reads_memory(door))}});
}

Verdict judge(const gf_modulated_conv2d* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n,
                   {{"n", a->n},
                    {"in_channels", a->in_channels},
                    {"out_channels", a->out_channels},
                    {"height", a->height},
                    {"width", a->width}},
                   {{"x", a->x},
                    {"packed", a->packed},
                    {"style", a->style, a->power != nullptr || !a->premodulated},
                    {"demod", a->demod, a->power != nullptr},
                    {"z", a->z, a->up == 2},
                    {"y", a->y}});
}

Verdict judge(const gf_modulated_conv2d_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  const bool stores = a->gx || a->gpacked || (a->gstyle && !a->premodulated);
  return judge_all(door, a->n,
                   {{"n", a->n},
                    {"in_channels", a->in_channels},
                    {"out_channels", a->out_channels},
                    {"height", a->height},
                    {"width", a->width}},
                   {{"gy", a->gy},
                    {"y", a->y},
                    {"x", a->x},
                    {"packed", a->packed},
                    {"style", a->style, a->power != nullptr || !a->premodulated},
                    {"demod", a->demod, a->power != nullptr},
                    {"g", a->g, stores},
                    {"gz", a->gz, stores && a->up == 2},
                    {"gdemod", a->gdemod, a->power && (a->gpacked || a->gstyle)}});
}

Verdict judge(const gf_modulated_conv2d_finish* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"channels", a->channels}, {"pixels", a->pixels}},
                   {{"z", a->z}, {"y", a->y}});
}

Verdict judge(const gf_modulated_conv2d_finish_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"channels", a->channels}, {"pixels", a->pixels}},
                   {{"gy", a->gy}, {"y", a->y}, {"demod", a->demod, a->gdemod != nullptr}});
}

Verdict judge(const gf_modulated_conv2d_scale_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"channels", a->channels}, {"pixels", a->pixels}},
                   {{"t", a->t}, {"x", a->x, a->gstyle != nullptr}});
}

Verdict judge(const gf_modulated_conv2d_winograd* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n,
                   {{"n", a->n},
                    {"in_channels", a->in_channels},
                    {"out_channels", a->out_channels},
                    {"height", a->height},
                    {"width", a->width}},
                   {{"x", a->x}, {"weight", a->weight}, {"scratch", a->scratch}, {"y", a->y}});
}

Verdict judge(const gf_separable_conv2d* a, const char* door) {
  if (!a) return no_arguments(door);
  const Verdict sizes = judge_all(
      door, a->n, {{"n", a->n}, {"inputs", a->inputs}, {"outputs", a->outputs}, {"h", a->h}, {"w", a->w}},
      {{"x", a->x}, {"pointwise", a->pointwise}, {"style", a->style}, {"y", a->y}});
  if (!sizes.run) return sizes;
  if (a->noise && a->noise_n != 1 && a->noise_n != a->n)
    return refuse(gf_fail(GF_INVALID, "%s has noise_n = %lld; it is 1 or n", door, static_cast<long long>(a->noise_n)));
  if (a->haar_style && (a->h % 2 || a->w % 2))
    return refuse(gf_fail(GF_INVALID, "%s has h, w = %lld, %lld; with haar_style both are even", door,
                          static_cast<long long>(a->h), static_cast<long long>(a->w)));
  return kRun;
}

Verdict judge(const gf_separable_conv2d_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  const Verdict sizes = judge_all(
      door, a->n, {{"n", a->n}, {"inputs", a->inputs}, {"outputs", a->outputs}, {"h", a->h}, {"w", a->w}},
      {{"gy", a->gy},
       {"y", a->y},
       {"x", a->x},
       {"haar_style", a->haar_style, a->ghaar_style != nullptr},
       {"depthwise", a->depthwise, a->gdepthwise != nullptr},
       {"pointwise", a->pointwise},
       {"style", a->style}});
  if (!sizes.run) return sizes;
  if (a->gnoise && a->noise_n != 1 && a->noise_n != a->n)
    return refuse(gf_fail(GF_INVALID, "%s has noise_n = %lld; it is 1 or n", door, static_cast<long long>(a->noise_n)));
  if (a->haar_style && (a->h % 2 || a->w % 2))
    return refuse(gf_fail(GF_INVALID, "%s has h, w = %lld, %lld; with haar_style both are even", door,
                          static_cast<long long>(a->h), static_cast<long long>(a->w)));
  return kRun;
}

Verdict judge(const gf_triplane_render* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_scene(a->scene, door,
                     {{"near_end", a->near_end},
                      {"far_end", a->far_end},
                      {"features", a->features},
                      {"depth", a->depth},
                      {"total", a->total},
                      {"depths", a->depths}});
}

Verdict judge(const gf_triplane_render_backward* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_scene(
      a->scene, door,
      {{"gfeatures", a->gfeatures}, {"gdepth", a->gdepth}, {"gtotal", a->gtotal}, {"depths", a->depths}});
}

Verdict judge(const gf_upfirdn2d* a, const char* door) {
  if (!a) return no_arguments(door);
  return judge_all(door, a->n, {{"n", a->n}, {"c", a->c}}, {{"x", a->x}, {"filter", a->filter}, {"y", a->y}});
}

}  // namespace gf
