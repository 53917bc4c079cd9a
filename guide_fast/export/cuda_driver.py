"""Which CUDA device is here, asked of the driver alone: no torch, no CUDA toolkit."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """A device that can run kernels."""

    name: str
    compute_capability: int  # 86 for 8.6


def found(index: int = 0, *, library: Any = None) -> Gpu | str:
    """The device, or why there is none in a few words; `library` replaces the driver's."""
    try:
        driver = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no CUDA driver is installed"
    count, device, value, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if status := driver.cuInit(0):
        return f"the CUDA driver does not start (error {status})"
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return "the CUDA driver finds no device"
    if index >= count.value or driver.cuDeviceGet(ctypes.byref(device), index):
        return f"the CUDA driver finds {count.value} device(s), none of number {index}"
    capability = 0
    for attribute in (_MAJOR, _MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability = 10 * capability + value.value
    driver.cuDeviceGetName(name, len(name), device)
    return Gpu(name.value.decode(), capability)
