"""Arrays go to the device and back; without a binding or a device the error says which and the way out."""

from __future__ import annotations

import importlib.util
import sys
from typing import cast

import numpy as np
import pytest
import torch
from conftest import absent

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.serve.cuda_memory import Cuda, CudaPython, PyCuda, cuda

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_without_a_binding_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UsageError, match=r"no CUDA binding for Python is installed; pip install pycuda .* cuda-bindings"
    ):
        cuda()


def test_the_second_binding_serves_where_the_first_is_missing() -> None:
    def missing(index: int) -> Cuda:
        raise ImportError(f"no binding for device {index}")

    def here(index: int) -> Cuda:
        return cast(Cuda, f"device {index}")

    assert cast(str, cuda(3, bindings=(missing, here, missing))) == "device 3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the device can be used")
def test_a_missing_device_is_said_by_the_real_binding() -> None:
    if importlib.util.find_spec("cuda") is None:
        absent("needs cuda-python: pip install 'guide-fast[tensorrt]'")
    with pytest.raises(
        UsageError, match=r"CUDA device 0 cannot be used \(.*driver.*\); serve the ONNX export on a CPU"
    ):
        CudaPython(0)


@pytest.mark.parametrize("binding", [pytest.param(PyCuda, marks=on_gpu), pytest.param(CudaPython, marks=on_gpu)])
def test_values_come_back_as_they_were(binding: type[Cuda]) -> None:
    try:
        device = binding(0)  # type: ignore[call-arg]
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    values = np.arange(35, dtype=np.float16).reshape(5, 7)
    with device.current():
        stream = device.stream()
        buffer = device.holding(values, stream)
        back = np.full_like(values, np.nan)
        device.read(buffer, back, stream)
        with pytest.raises(GuideFastError, match="no room for"):
            device.empty(2**50)
    assert np.array_equal(back, values)
