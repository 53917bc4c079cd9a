// Native CPU path of separable_conv2d.
#include "guide_fast/separable_conv2d.h"
#include "isa.h"

extern "C" gf_status GF_LOCAL(gf_separable_conv2d_cpu)(const gf_separable_conv2d*) {
  return gf_fail(GF_UNSUPPORTED, "separable_conv2d is not built for the CPU; use impl='reference'");
}
GF_CPU_ENTRY(gf_separable_conv2d_cpu, gf_separable_conv2d)

extern "C" gf_status GF_LOCAL(gf_separable_conv2d_backward_cpu)(const gf_separable_conv2d_backward*) {
  return gf_fail(GF_UNSUPPORTED, "separable_conv2d is not built for the CPU; use impl='reference'");
}
GF_CPU_ENTRY(gf_separable_conv2d_backward_cpu, gf_separable_conv2d_backward)
