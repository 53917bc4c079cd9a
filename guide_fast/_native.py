"""Stands in where `_native.<interpreter>.so` was not built for this interpreter: Python prefers that file to this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The functions of csrc/python."""

else:
    _built = sorted(path.name.split(".")[1] for path in Path(__file__).parent.glob("_native.*.so"))
    if not _built:
        raise ImportError(f"{__name__} is not built: install a wheel of guide-fast, or run `make setup` (needs g++)")
    raise ImportError(
        f"{__name__} is built for {', '.join(_built)} and this is {sys.implementation.cache_tag}: run one of those, "
        f"or rebuild the wheel with GUIDE_FAST_PYTHONS={sys.executable}"
    )
