// Index arithmetic of upfirdn2d, on the host and on the device.
#pragma once

#include "guide_fast/upfirdn2d.h"
#include "host_device.h"

namespace gf {

struct first_tap_of {
  int tap;    // the smallest k >= 0 at which u + k is a pixel, not an inserted zero
  int pixel;  // that pixel: (u + k) / up, also below 0
};

// Of an output whose window begins at u = o * down - pad in the up-sampled line; the next taps are `up` apart.
GF_HD first_tap_of first_tap(int u, int up) {
  const int tap = (up - u % up) % up;
  return {tap, (u + tap) / up};
}

// The taps that meet pixels of a line of `size`: count of them, after moving `first` to the first inside.
GF_HD int taps_inside(first_tap_of& first, int up, int taps, int size) {
  if (first.pixel < 0) {
    first.tap -= first.pixel * up;
    first.pixel = 0;
  }
  const int by_filter = first.tap < taps ? (taps - first.tap + up - 1) / up : 0;
  const int by_line = size - first.pixel;
  return by_line < by_filter ? (by_line > 0 ? by_line : 0) : by_filter;
}

inline gf_status check_upfirdn2d(const gf_upfirdn2d& a) {
  if (a.up_x < 1 || a.up_y < 1 || a.down_x < 1 || a.down_y < 1)
    return gf_fail(GF_INVALID, "upfirdn2d takes up and down from 1 on, not (%d, %d) and (%d, %d)", a.up_x, a.up_y,
                   a.down_x, a.down_y);
  if (a.filter_h < 1 || a.filter_w < 1)
    return gf_fail(GF_INVALID, "upfirdn2d takes a filter of at least 1x1, not %dx%d", a.filter_h, a.filter_w);
  if (a.in_h < 1 || a.in_w < 1 || a.out_h < 1 || a.out_w < 1)
    return gf_fail(GF_INVALID, "upfirdn2d takes images of at least 1x1, not %lldx%lld to %lldx%lld",
                   (long long)a.in_h, (long long)a.in_w, (long long)a.out_h, (long long)a.out_w);
  return GF_OK;
}

}  // namespace gf
