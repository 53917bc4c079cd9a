"""Says why guide_fast._native cannot run: Python prefers `_native.<interpreter>.so` to this file where it is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The functions of csrc/python."""

else:
    _built = sorted(
        "-".join(path.name.split(".")[1].split("-")[:2]) for path in Path(__file__).parent.glob("_native.*.so")
    )
    if not _built:
        raise ImportError(f"{__name__} is not built: install a wheel of guide-fast, or run `make setup` (needs g++)")
    raise ImportError(
        f"{__name__} is built for {', '.join(_built)} and this is {sys.implementation.cache_tag}: run one of those, "
        f"or rebuild the wheel with GUIDE_FAST_PYTHONS={sys.executable}"
    )
