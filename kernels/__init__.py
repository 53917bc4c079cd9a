"""The operations: reference, Triton, CUDA C++, native CPU path behind one door each."""

from guide_fast.kernels._errors import ImplementationUnavailable, KernelError

# Each function hides the folder of the same name; `from guide_fast.kernels.bias_act import bias_act_triton` finds it.
from guide_fast.kernels.bias_act.bias_act import bias_act
from guide_fast.kernels.modulated_conv2d.modulated_conv2d import modulated_conv2d

__all__ = ["ImplementationUnavailable", "KernelError", "bias_act", "modulated_conv2d"]
