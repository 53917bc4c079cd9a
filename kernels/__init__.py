"""The operations: reference, Triton, CUDA C++, native CPU path behind one door each."""

from guide_fast.kernels import _extension
from guide_fast.kernels._errors import ImplementationUnavailable, KernelError

# Each function hides the folder of the same name; `from guide_fast.kernels.bias_act import bias_act_triton` finds it.
from guide_fast.kernels.bias_act.bias_act import bias_act
from guide_fast.kernels.face_crop.face_crop import face_crop
from guide_fast.kernels.face_crop.framing import Framing
from guide_fast.kernels.feature_distance.feature_distance import feature_distance
from guide_fast.kernels.fused_adam.fused_adam import fused_adam
from guide_fast.kernels.fused_adam.optimizer import FusedAdam
from guide_fast.kernels.haar.haar import haar
from guide_fast.kernels.identity_loss.identity_loss import identity_loss
from guide_fast.kernels.modulated_conv2d.modulated_conv2d import modulated_conv2d
from guide_fast.kernels.separable_conv2d.separable_conv2d import separable_conv2d
from guide_fast.kernels.triplane_render.triplane_render import triplane_render
from guide_fast.kernels.upfirdn2d.upfirdn2d import upfirdn2d

__all__ = [
    "Framing",
    "FusedAdam",
    "ImplementationUnavailable",
    "KernelError",
    "bias_act",
    "face_crop",
    "feature_distance",
    "fused_adam",
    "haar",
    "identity_loss",
    "modulated_conv2d",
    "separable_conv2d",
    "triplane_render",
    "upfirdn2d",
]

_extension.load()
