// One modulated convolution, one identity loss on the CPU, against plain loops; exits with 1 where they differ.
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

// y = leaky_relu(d * conv3x3(s * x, W) + noise + bias) * sqrt(2), d = 1 / |s W|: one layer of StyleGAN2, NHWC.
bool modulated_conv2d_agrees() {
  const int64_t n = 2, inputs = 7, outputs = 5, height = 6, width = 9;
  const Values x = normal(n * height * width * inputs, 1), weight = normal(outputs * inputs * 9, 2);
  const Values style = normal(n * inputs, 3), noise = normal(height * width, 4), bias = normal(outputs, 5);

  // once per weight
  Values packed(weight.size(), NAN), power(outputs * inputs, NAN);
  gf_modulated_conv2d_weight w{};
  w.dtype = GF_FLOAT32;
  w.out_channels = outputs, w.in_channels = inputs, w.kernel = 3;
  w.weight = weight.data(), w.packed = packed.data(), w.power = power.data();
  gf_status status = gf_modulated_conv2d_weight_cpu(&w);

  Values y(n * height * width * outputs, NAN), demod(n * outputs, NAN);
  gf_modulated_conv2d a{};
  a.dtype = GF_FLOAT32;
  a.n = n, a.in_channels = inputs, a.out_channels = outputs, a.height = height, a.width = width;
  a.kernel = 3, a.up = 1;
  a.x = x.data(), a.packed = packed.data(), a.power = power.data(), a.style = style.data();
  a.noise = noise.data(), a.noise_stride = 0, a.bias = bias.data();
  a.demod = demod.data(), a.y = y.data();
  a.activation = GF_LRELU, a.slope = 0.2f, a.gain = std::sqrt(2.f), a.clamp = -1;
  if (status == GF_OK) status = gf_modulated_conv2d_cpu(&a);

  Values wanted(y.size());
  for (int64_t image = 0; image < n; ++image)
    for (int64_t o = 0; o < outputs; ++o) {
      const float* s = &style[image * inputs];
      double squares = 1e-8;
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t tap = 0; tap < 9; ++tap) squares += std::pow(double(s[i]) * weight[(o * inputs + i) * 9 + tap], 2);
      for (int64_t row = 0; row < height; ++row)
        for (int64_t column = 0; column < width; ++column) {
          double sum = 0;
          for (int64_t tap = 0; tap < 9; ++tap) {
            const int64_t from_row = row + tap / 3 - 1, from_column = column + tap % 3 - 1;
            if (from_row < 0 || from_row >= height || from_column < 0 || from_column >= width) continue;
            const float* pixel = &x[((image * height + from_row) * width + from_column) * inputs];
            for (int64_t i = 0; i < inputs; ++i) sum += double(s[i]) * pixel[i] * weight[(o * inputs + i) * 9 + tap];
          }
          const double value = sum / std::sqrt(squares) + noise[row * width + column] + bias[o];
          wanted[((image * height + row) * width + column) * outputs + o] =
              float(std::sqrt(2.) * (value < 0 ? 0.2 * value : value));
        }
    }
  return agrees("modulated_conv2d", status, y, wanted, 1e-5f);
}

// loss = 1 - cos(a, b) of each pair of embeddings, with its gradient in a.
bool identity_loss_agrees() {
  const int64_t rows = 3, width = 129;
  const Values a = normal(rows * width, 6), b = normal(rows * width, 7);
  Values loss(rows, NAN), gradient(a.size(), NAN);
  gf_identity_loss l{};
  l.dtype = GF_FLOAT32;
  l.rows = rows, l.width = width;
  l.a = a.data(), l.b = b.data(), l.loss = loss.data(), l.da = gradient.data();
  l.kind = GF_COSINE, l.normalise = 1, l.scale = 1, l.eps = 1e-8f;
  const gf_status status = gf_identity_loss_cpu(&l);

  Values wanted(rows), wanted_gradient(a.size());
  for (int64_t row = 0; row < rows; ++row) {
    const float *u = &a[row * width], *v = &b[row * width];
    double uu = 0, vv = 0, uv = 0;
    for (int64_t i = 0; i < width; ++i) uu += double(u[i]) * u[i], vv += double(v[i]) * v[i], uv += double(u[i]) * v[i];
    const double lengths = std::sqrt(uu * vv);
    wanted[row] = float(1 - uv / lengths);
    for (int64_t i = 0; i < width; ++i)
      wanted_gradient[row * width + i] = float(uv / lengths / uu * u[i] - v[i] / lengths);
  }
  return agrees("identity_loss", status, loss, wanted, 1e-5f) &&
         agrees("its gradient", status, gradient, wanted_gradient, 1e-5f);
}

}  // namespace

int main() {
  std::printf("instruction set %d, CUDA kernels: %s\n", gf_instruction_set(), gf_cuda_built() ? "yes" : "no");
  const bool convolution = modulated_conv2d_agrees(), identity = identity_loss_agrees();
  return convolution && identity ? 0 : 1;
}
