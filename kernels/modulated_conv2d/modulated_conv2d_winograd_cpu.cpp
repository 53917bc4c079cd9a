// The 3x3 convolution of modulated_conv2d on the CPU by Winograd's F(4x4, 3x3): a quarter of the multiplications.
//
// Tiles of 6x6 inputs give 4x4 outputs. v [point][tile][channel] is the transformed input, u [point][k][channel] the
// transformed weight, a panel of output channels after another; m [tile][point][channel] their products.
#include <algorithm>
#include <vector>

#include "guide_fast/modulated_conv2d.h"
#include "isa.h"
#include "modulated_conv2d_winograd.h"
#include "parallel.h"
#include "separable_conv2d_rows.h"

namespace {

constexpr int64_t kLine = 16;                // floats of a cache line
constexpr int64_t kBlockFloats = 80 << 10;  // of v in one task, which the second-level cache holds
constexpr int64_t kFewTiles = 24, kManyTiles = 48;  // of one block: multiples of every product's pixels
constexpr int64_t kWidest = kWide * kLanes;

// From row to row of v, of u: rows a power of two apart would share cache sets.
int64_t step_of(int64_t channels) { return round_up(channels, kLine) + kLine; }

struct Convolution {
  const gf_modulated_conv2d_winograd& a;
  std::vector<float> style, demod, bias, next;  // zeros behind the last channel
  int64_t padded_in, padded_out, v_step;
  int64_t tiles_y, tiles_x, tiles;
  int64_t block;  // tiles of one task

  explicit Convolution(const gf_modulated_conv2d_winograd& arguments) : a(arguments) {
    padded_in = round_up(a.in_channels, kLanes), padded_out = round_up(a.out_channels, kLanes);
    v_step = step_of(a.in_channels);
    tiles_y = (a.height + kTile - 1) / kTile, tiles_x = (a.width + kTile - 1) / kTile;
    tiles = a.n * tiles_y * tiles_x;
    block = std::clamp(kBlockFloats / (kPoints * v_step) / 12 * 12, kFewTiles, kManyTiles);
    if (a.style) style = padded(a.style, a.n, a.in_channels, padded_in);
    if (a.demod) demod = padded(a.demod, a.n, a.out_channels, padded_out);
    if (a.next_style) next = padded(a.next_style, a.n, a.out_channels, padded_out);
    bias = padded(a.bias, 1, a.out_channels, padded_out);
  }

  int64_t u_plane(const Panel& panel) const { return a.in_channels * panel.wide * kLanes + kLine; }
  int64_t u_floats(const Panel& panel) const { return kPoints * u_plane(panel); }
  int64_t u_first(const Panel& panel) const {  // of panels before it
    return kPoints * (a.in_channels * panel.first + panel.first / kWidest * kLine);
  }
  int64_t v_plane(int64_t count) const { return std::max<int64_t>(count, kMaxPixels) * v_step + kLine; }

  // Floats of m for `count` tiles.
  static int64_t products(int64_t count) { return std::max<int64_t>(count, kMaxPixels) * kPoints * kWidest; }

  // Channels [k, k + kLanes) of nine taps for output channels [first, first + kLanes): taps [k][tap][lane].
  void load_taps(int64_t first, int64_t k, float (*taps)[9][kLanes]) const {
    const int64_t in = a.in_channels, lanes_in = std::min<int64_t>(kLanes, in - k);
    const int64_t lanes_out = std::min<int64_t>(kLanes, a.out_channels - first);
    if (lanes_in < kLanes || lanes_out < kLanes) std::fill_n(&taps[0][0][0], kLanes * 9 * kLanes, 0.f);
    if (a.adjoint) {  // weight [in, out, 3, 3], turned
      const int64_t tap_step = a.weight_nhwc ? a.out_channels : 1, lane_step = a.weight_nhwc ? 1 : 9;
      for (int64_t i = 0; i < lanes_in; ++i) {
        const float* at = a.weight + (k + i) * 9 * a.out_channels + first * lane_step;
        for (int tap = 0; tap < 9; ++tap)
          if (a.weight_nhwc && lanes_out == kLanes)
            store_vec(taps[i][8 - tap], load_vec(at + tap * tap_step));
          else
            for (int64_t o = 0; o < lanes_out; ++o) taps[i][8 - tap][o] = at[tap * tap_step + o * lane_step];
      }
      return;
    }
    const float* at = a.weight + first * 9 * in;
    if (lanes_in == kLanes && lanes_out == kLanes) {
      for (int part = 0; part < 9; ++part) {  // nine squares: a tap each, or kLanes numbers of what lies tap by tap
        vec rows[kLanes];
        const float* square = at + (a.weight_nhwc ? part * in + k : k * 9 + part * kLanes);
        for (int o = 0; o < kLanes; ++o) rows[o] = load_vec(square + o * 9 * in);
        transpose(rows);
        for (int j = 0; j < kLanes; ++j) {
          const int number = part * kLanes + j;
          store_vec(a.weight_nhwc ? taps[j][part] : taps[number / 9][number % 9], rows[j]);
        }
      }
      return;
    }
    for (int64_t i = 0; i < lanes_in; ++i)
      for (int64_t tap = 0; tap < 9; ++tap)
        for (int64_t o = 0; o < lanes_out; ++o)
          taps[i][tap][o] = at[o * 9 * in + (a.weight_nhwc ? tap * in + k + i : (k + i) * 9 + tap)];
  }

  void transform_weight(const Panel& panel, float* u) const {
    const int64_t width = panel.wide * kLanes, plane = u_plane(panel);
    alignas(64) float taps[kLanes][9][kLanes];
    for (int q = 0; q < panel.wide; ++q)
      for (int64_t k = 0; k < a.in_channels; k += kLanes) {
        load_taps(panel.first + q * kLanes, k, taps);
        for (int64_t i = 0; i < std::min<int64_t>(kLanes, a.in_channels - k); ++i) {
          float* out = u + (k + i) * width + q * kLanes;
          vec half[3][kSpan];  // [column of the kernel][point]
#pragma GCC unroll 3
          for (int column = 0; column < 3; ++column) {
            const vec g[3] = {load_vec(taps[i][column]), load_vec(taps[i][3 + column]), load_vec(taps[i][6 + column])};
            turn_weight(g, half[column]);
          }
#pragma GCC unroll 6
          for (int y = 0; y < kSpan; ++y) {
            const vec g[3] = {half[0][y], half[1][y], half[2][y]};
            vec found[kSpan];
            turn_weight(g, found);
#pragma GCC unroll 6
            for (int x = 0; x < kSpan; ++x) store_vec(out + (y * kSpan + x) * plane, found[x]);
          }
        }
      }
  }

  // The first `count` channels at `x`, zeros behind them.
  static GF_INLINE vec load_some(const float* x, int64_t count) {
    if (count >= kLanes) return load_vec(x);
    float part[kLanes] = {};
    std::copy_n(x, count, part);
    return load_vec(part);
  }

  // Tiles [first, first + count), the style multiplied in, to v of `plane`.
  void transform_input(int64_t first, int64_t count, int64_t plane, float* v) const {
    for (int64_t tile = first; tile < first + count; ++tile, v += v_step) {
      const int64_t image = tile / (tiles_y * tiles_x);
      const int64_t top = tile / tiles_x % tiles_y * kTile - 1, left = tile % tiles_x * kTile - 1;
      const float* x = a.x + image * a.height * a.width * a.in_channels;
      const bool inside = top >= 0 && left >= 0 && top + kSpan <= a.height && left + kSpan <= a.width;
      for (int64_t c = 0; c < a.in_channels; c += kLanes) {
        const int64_t channels = a.in_channels - c;
        const vec factor = a.style ? load_vec(style.data() + image * padded_in + c) : fill_vec(1.f);
        vec half[kSpan][kSpan];  // [column][point]
        for (int64_t column = 0; column < kSpan; ++column) {
          vec d[kSpan];
#pragma GCC unroll 6
          for (int64_t row = 0; row < kSpan; ++row) {
            const float* at = x + ((top + row) * a.width + left + column) * a.in_channels + c;
            const bool zero = !inside && (top + row < 0 || top + row >= a.height || left + column < 0 ||
                                          left + column >= a.width);
            d[row] = zero ? vec{} : load_some(at, channels) * factor;
          }
          turn_input(d, half[column]);
        }
#pragma GCC unroll 6
        for (int y = 0; y < kSpan; ++y) {
          const vec d[kSpan] = {half[0][y], half[1][y], half[2][y], half[3][y], half[4][y], half[5][y]};
          vec found[kSpan];
          turn_input(d, found);
#pragma GCC unroll 6
          for (int x_point = 0; x_point < kSpan; ++x_point)
            store_vec(v + (y * kSpan + x_point) * plane + c, found[x_point]);
        }
      }
    }
  }

  // m of `count` tiles whose v begins at `v`.
  void multiply(const Panel& panel, int64_t count, const float* v, int64_t plane, const float* u, float* m) const {
    const int64_t width = panel.wide * kLanes;
    for (int point = 0; point < kPoints; ++point) {
      const float* b = u + point * u_plane(panel);
      const Soon soon = point + 1 < kPoints ? Soon{{b + u_plane(panel)}, {a.in_channels * width}} : Soon{};
      product({v + point * plane, v_step, 1, b, width, count, a.in_channels}, panel.wide, soon,
              [&](int64_t tile, int q, vec sum) __attribute__((always_inline)) {
                store_vec(m + (tile * kPoints + point) * width + q * kLanes, sum);
              });
    }
  }

  // From m of tiles [first, first + count) to y, through the rest of the layer.
  void transform_output(const Panel& panel, int64_t first, int64_t count, const float* m) const {
    const int64_t width = panel.wide * kLanes;
    for (int64_t tile = first; tile < first + count; ++tile, m += kPoints * width) {
      const int64_t image = tile / (tiles_y * tiles_x);
      const int64_t top = tile / tiles_x % tiles_y * kTile, left = tile % tiles_x * kTile;
      const int64_t rows = std::min<int64_t>(kTile, a.height - top), columns = std::min<int64_t>(kTile, a.width - left);
      const float* noise = a.noise ? a.noise + image * a.noise_stride + top * a.width + left : nullptr;
      for (int q = 0; q < panel.wide; ++q) {
        const int64_t c = panel.first + q * kLanes, channels = std::min<int64_t>(kLanes, a.out_channels - c);
        const vec scale = a.demod ? load_vec(demod.data() + image * padded_out + c) : fill_vec(1.f);
        const vec following = a.next_style ? load_vec(next.data() + image * padded_out + c) : fill_vec(1.f);
        const vec added = load_vec(bias.data() + c);
        vec half[kSpan][kTile];  // [point][row]
#pragma GCC unroll 6
        for (int x = 0; x < kSpan; ++x) {
          vec points[kSpan];
#pragma GCC unroll 6
          for (int y = 0; y < kSpan; ++y) points[y] = load_vec(m + (y * kSpan + x) * width + q * kLanes);
          turn_output(points, half[x]);
        }
        for (int64_t row = 0; row < rows; ++row) {
          const vec points[kSpan] = {half[0][row], half[1][row], half[2][row],
                                     half[3][row], half[4][row], half[5][row]};
          vec found[kTile];
          turn_output(points, found);
          float* y = a.y + ((image * a.height + top + row) * a.width + left) * a.out_channels + c;
#pragma GCC unroll 4
          for (int64_t column = 0; column < kTile; ++column) {
            if (column >= columns) break;
            const float drawn = noise ? noise[row * a.width + column] : 0.f;
            const vec value = finish(found[column] * scale + drawn + added) * following;
            if (channels == kLanes)
              store_vec(y + column * a.out_channels, value);
            else
              store_some(y + column * a.out_channels, value, channels);
          }
        }
      }
    }
  }

  // clamp(act(x) * gain), as gf::activate
  GF_INLINE vec finish(vec x) const {
    if (a.activation == GF_LRELU) x = x < 0 ? x * a.slope : x;
    x *= a.gain;
    if (a.clamp < 0) return x;
    return x > a.clamp ? fill_vec(a.clamp) : x < -a.clamp ? fill_vec(-a.clamp) : x;  // a NaN passes
  }

  // body(first tile, count) over blocks of about the same size, at most `most`
  template <class Body>
  void each_block(int64_t most, int64_t begin, int64_t end, const Body& body) const {
    const int64_t blocks = (tiles + most - 1) / most;
    for (int64_t i = begin; i < std::min(end, blocks); ++i) {
      const int64_t first = tiles * i / blocks;
      body(first, tiles * (i + 1) / blocks - first);
    }
  }

  // v lies in the scratch, each task makes u of its panel: every weight is transformed once, stays in the cache.
  void by_panels() const {
    const int64_t plane = v_plane(tiles);
    for (int point = 0; point < kPoints && tiles < kMaxPixels; ++point)  // products read beyond the tiles
      std::fill_n(a.scratch + point * plane + tiles * v_step, (kMaxPixels - tiles) * v_step, 0.f);
    gf::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
      transform_input(begin, end - begin, plane, a.scratch + begin * v_step);
    });
    gf::parallel_for(0, panel_count(a.out_channels), 1, [&](int64_t begin, int64_t end) {
      static thread_local Scratch scratch;
      for (int64_t index = begin; index < end; ++index) {
        const Panel panel = panel_at(index, a.out_channels);
        float* u = scratch.take(u_floats(panel) + products(kManyTiles));
        float* m = u + u_floats(panel);
        transform_weight(panel, u);
        each_block(kManyTiles, 0, tiles, [&](int64_t first, int64_t count) {
          multiply(panel, count, a.scratch + first * v_step, plane, u, m);
          transform_output(panel, first, count, m);
        });
      }
    });
  }

  // u lies in the scratch, each task makes v of its tiles.
  void by_tiles() const {
    gf::parallel_for(0, panel_count(a.out_channels), 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const Panel panel = panel_at(index, a.out_channels);
        transform_weight(panel, a.scratch + u_first(panel));
      }
    });
    gf::parallel_for(0, (tiles + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
      static thread_local Scratch scratch;
      const int64_t plane = v_plane(block);
      float* v = scratch.take(kPoints * plane + products(block));
      float* m = v + kPoints * plane;
      each_block(block, begin, end, [&](int64_t first, int64_t count) {
        if (count < kMaxPixels) std::fill_n(v, kPoints * plane, 0.f);  // products read beyond the tiles
        transform_input(first, count, plane, v);
        for (int64_t p = 0; p < panel_count(a.out_channels); ++p) {
          const Panel panel = panel_at(p, a.out_channels);
          multiply(panel, count, v, plane, a.scratch + u_first(panel), m);
          transform_output(panel, first, count, m);
        }
      });
    });
  }
};

}  // namespace

extern "C" gf_status GF_LOCAL(gf_modulated_conv2d_winograd_cpu)(const gf_modulated_conv2d_winograd* a) {
  const Convolution convolution(*a);
  a->keep_weight ? convolution.by_tiles() : convolution.by_panels();
  return GF_OK;
}
GF_CPU_ENTRY(gf_modulated_conv2d_winograd_cpu, gf_modulated_conv2d_winograd)
