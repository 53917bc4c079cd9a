// F(4x4, 3x3) of Winograd in vectors: the 1-D transforms through 0, +-sqrt(2), +-sqrt(1/2), infinity; README.md has them.
#pragma once

#include "separable_conv2d_product.h"

namespace {

constexpr int kTile = 4;             // outputs along an axis
constexpr int kSpan = kTile + 2;     // inputs along an axis, products along an axis
constexpr int kPoints = kSpan * kSpan;
constexpr float kFar = 1.41421356f;   // sqrt(2)
constexpr float kNear = 0.70710678f;  // sqrt(1/2)

// B^T d
GF_INLINE void turn_input(const vec (&d)[kSpan], vec (&v)[kSpan]) {
  const vec even_far = d[4] - 0.5f * d[2], odd_far = kFar * (d[3] - 0.5f * d[1]);
  const vec even_near = d[4] - 2.f * d[2], odd_near = kNear * (d[3] - 2.f * d[1]);
  v[0] = d[0] - 2.5f * d[2] + d[4];
  v[1] = even_far + odd_far, v[2] = even_far - odd_far;
  v[3] = even_near + odd_near, v[4] = even_near - odd_near;
  v[5] = d[1] - 2.5f * d[3] + d[5];
}

// G g
GF_INLINE void turn_weight(const vec (&g)[3], vec (&u)[kSpan]) {
  const vec even_far = g[0] * (1.f / 6) + g[2] * (1.f / 3), odd_far = g[1] * (kFar / 6);
  const vec even_near = g[0] * (-2.f / 3) - g[2] * (1.f / 3), odd_near = g[1] * (kNear * -2 / 3);
  u[0] = g[0];
  u[1] = even_far + odd_far, u[2] = even_far - odd_far;
  u[3] = even_near + odd_near, u[4] = even_near - odd_near;
  u[5] = g[2];
}

// A^T m
GF_INLINE void turn_output(const vec (&m)[kSpan], vec (&y)[kTile]) {
  const vec even_far = m[1] + m[2], odd_far = kFar * (m[1] - m[2]);
  const vec even_near = m[3] + m[4], odd_near = kNear * (m[3] - m[4]);
  y[0] = m[0] + even_far + even_near;
  y[1] = odd_far + odd_near;
  y[2] = 2.f * even_far + 0.5f * even_near;
  y[3] = 2.f * odd_far + 0.5f * odd_near + m[5];
}

}  // namespace
