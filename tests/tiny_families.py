"""A tiny generator of every family that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiny import tiny_generator
from tiny_eg3d import tiny_eg3d
from tiny_stylegan2 import tiny_stylegan2

MAKERS: dict[str, Callable[[], Any]] = {
    "mobilestylegan": tiny_generator,
    "stylegan2": tiny_stylegan2,
    "stylegan2-conditional": lambda: tiny_stylegan2(
        architecture="resnet", c_dim=4, conv_clamp=0.7, num_fp16_res=3, img_resolution=16
    ),
    "eg3d": lambda: tiny_eg3d(depth_resolution=6, depth_resolution_importance=5),
}
