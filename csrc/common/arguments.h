// What every launcher asks of its arguments before it reads them.
#pragma once

#include "guide_fast.h"

namespace gf {

// Run, or return `status` at once: an error with its sentence, or GF_OK where the batch is empty.
struct Verdict {
  bool run;
  gf_status status;
};

// `door` is the name of the launcher. What it says of pointers holds for both; what lies behind them is read only by
// the CPU's doors.
Verdict judge(const gf_bias_act* a, const char* door);
Verdict judge(const gf_bias_act_backward* a, const char* door);
Verdict judge(const gf_face_crop* a, const char* door);
Verdict judge(const gf_feature_distance* a, const char* door);
Verdict judge(const gf_fused_adam* a, const char* door);
Verdict judge(const gf_haar* a, const char* door);
Verdict judge(const gf_haar_backward* a, const char* door);
Verdict judge(const gf_identity_loss* a, const char* door);
Verdict judge(const gf_modulated_conv2d_weight* a, const char* door);
Verdict judge(const gf_modulated_conv2d* a, const char* door);
Verdict judge(const gf_modulated_conv2d_backward* a, const char* door);
Verdict judge(const gf_modulated_conv2d_finish* a, const char* door);
Verdict judge(const gf_modulated_conv2d_finish_backward* a, const char* door);
Verdict judge(const gf_modulated_conv2d_scale_backward* a, const char* door);
Verdict judge(const gf_modulated_conv2d_winograd* a, const char* door);
Verdict judge(const gf_separable_conv2d* a, const char* door);
Verdict judge(const gf_separable_conv2d_backward* a, const char* door);
Verdict judge(const gf_triplane_render* a, const char* door);
Verdict judge(const gf_triplane_render_backward* a, const char* door);
Verdict judge(const gf_upfirdn2d* a, const char* door);

}  // namespace gf
