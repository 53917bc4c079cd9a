// Runs operations of libguide_fast on the CPU, compares each with plain loops; exits with 1 where they differ.
#include <guide_fast.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using Values = std::vector<float>;

Values normal(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  Values values(count);
  for (float& value : values) value = draw(random);
  return values;
}

// Whether every element of `got` is within `tolerance` of `wanted`, relative to the largest of those; NaN is not.
bool agrees(const char* name, gf_status status, const Values& got, const Values& wanted, float tolerance) {
  if (status != GF_OK) {
    std::fprintf(stderr, "%s failed: %s\n", name, gf_last_error());
    return false;
  }
  float largest = 0, off = 0;
  for (float value : wanted) largest = std::max(largest, std::abs(value));
  bool good = true;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const float difference = std::abs(got[i] - wanted[i]);
    good = good && difference <= tolerance * largest;  // never true of NaN
    off = std::max(off, difference);
  }
  std::printf("%-18s %s: off by %.2g, values up to %.2g\n", name, good ? "agrees" : "DIFFERS", off, largest);
  return good;
}

float leaky_relu(float value) { return value < 0 ? 0.2f * value : value; }

bool bias_act_agrees() {
  const int64_t n = 2, channels = 5, pixels = 77;
  const Values x = normal(n * channels * pixels, 1), bias = normal(channels, 2);
  Values y(x.size(), NAN), wanted(x.size());
  gf_bias_act a{};
  a.dtype = GF_FLOAT32;
  a.outer = n, a.channels = channels, a.inner = pixels;
  a.x = x.data(), a.bias = bias.data(), a.y = y.data();
  a.activation = GF_LRELU, a.slope = 0.2f, a.gain = std::sqrt(2.f), a.clamp = -1;
  const gf_status status = gf_bias_act_cpu(&a);
  for (size_t i = 0; i < x.size(); ++i)
    wanted[i] = std::sqrt(2.f) * leaky_relu(x[i] + bias[i / pixels % channels]);
  return agrees("bias_act", status, y, wanted, 1e-6f);
}

}  // namespace

int main() {
  std::printf("instruction set %d, CUDA kernels: %s\n", gf_instruction_set(), gf_cuda_built() ? "yes" : "no");
  bool good = bias_act_agrees();
  return good ? 0 : 1;
}
