"""The driver's answers become a device, or the reason why there is none."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from guide_fast.export.cuda_driver import Gpu, found


class Driver:
    """Answers as libcuda does."""

    def __init__(self, *, devices: int = 1, capability: tuple[int, int] = (12, 0), start: int = 0) -> None:
        self.devices, self.start = devices, start
        self.attributes = {75: capability[0], 76: capability[1]}

    def cuInit(self, flags: int) -> int:
        return self.start

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        value._obj.value = self.attributes[attribute]
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> int:
        name.value = b"GPU %d" % device.value
        return 0


def test_a_device_has_a_name_and_its_compute_capability() -> None:
    assert found(library=Driver()) == Gpu("GPU 0", 120)
    assert found(1, library=Driver(devices=2, capability=(8, 6))) == Gpu("GPU 1", 86)


def test_a_missing_device_is_said_why() -> None:
    assert found(library=Driver(start=100)) == "the CUDA driver does not start (error 100)"
    assert found(library=Driver(devices=0)) == "the CUDA driver finds no device"
    assert found(3, library=Driver()) == "the CUDA driver finds 1 device(s), none of number 3"


def test_the_real_driver_agrees_with_torch() -> None:
    assert isinstance(found(), Gpu) or not torch.cuda.is_available()
