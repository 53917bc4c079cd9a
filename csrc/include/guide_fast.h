/* The C interface of guide_fast: one struct of arguments per operation, a CPU and a CUDA launcher for it. */
#ifndef GUIDE_FAST_H
#define GUIDE_FAST_H

#include "guide_fast/bias_act.h"
#include "guide_fast/face_crop.h"
#include "guide_fast/feature_distance.h"
#include "guide_fast/haar.h"
#include "guide_fast/identity_loss.h"
#include "guide_fast/modulated_conv2d.h"
#include "guide_fast/separable_conv2d.h"
#include "guide_fast/status.h"
#include "guide_fast/triplane_render.h"
#include "guide_fast/upfirdn2d.h"

#endif
