"""What runs in a user's process, where Triton is not interpreted: `impl="auto"` on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import sys
import torch
from {module} import {maker}

generator = {maker}().requires_grad_(True)
outputs = []
for impl in ("reference", "auto"):
    generator.impl = impl
    generator.zero_grad()
    random = torch.Generator().manual_seed(0)
    ws = torch.randn(1, generator.num_ws, generator.w_dim, generator=random).requires_grad_()
    image = generator.synthesis(ws).image
    image.square().sum().backward()
    with torch.no_grad():
        outputs.append((image, ws.grad, generator.synthesis(ws).image))
for wanted, found in zip(*outputs):
    assert (wanted - found).abs().max() <= 1e-3 * wanted.abs().max(), (wanted - found).abs().max()
"""


@pytest.mark.parametrize(
    ("module", "maker"),
    [("tiny", "tiny_generator"), ("tiny_stylegan2", "tiny_stylegan2"), ("tiny_eg3d", "tiny_eg3d")],
)
def test_generator_renders_with_gradients_as_the_reference_does(module: str, maker: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    code = CODE.format(module=module, maker=maker)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
