"""The stage that takes a generator out of PyTorch.

Importing it needs no PyTorch, so that a process which runs an exported generator can use `rules` or `folder` alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guide_fast.export.folder import ExportedGenerator

_HOME = {"ExportedGenerator": "guide_fast.export.folder"}

__all__ = ["ExportedGenerator"]


class _CallableStage(ModuleType):
    """The folder has the name of its function: `guide_fast.export(...)` is `guide_fast.pipeline.export(...)`."""

    def __call__(self, *arguments: Any, **options: Any) -> ExportedGenerator:
        return import_module("guide_fast.pipeline").export(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


sys.modules[__name__].__class__ = _CallableStage
