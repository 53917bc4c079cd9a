"""guide-fast makes a pretrained face generator forget a person, leaving evidence of it.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guide_fast.artifacts import Delta, Forgotten, Latent
    from guide_fast.config import Config
    from guide_fast.deltas import apply_delta, rollback
    from guide_fast.evaluate import evaluate
    from guide_fast.pipeline import evaluate_delta, export, forget, invert_photo, load_generator, render, save_generator

_HOME = {
    "Config": "guide_fast.config",
    "Delta": "guide_fast.artifacts",
    "Forgotten": "guide_fast.artifacts",
    "Latent": "guide_fast.artifacts",
    "apply_delta": "guide_fast.deltas",
    "evaluate": "guide_fast.evaluate",
    "evaluate_delta": "guide_fast.pipeline",
    "export": "guide_fast.pipeline",
    "forget": "guide_fast.pipeline",
    "invert_photo": "guide_fast.pipeline",
    "load_generator": "guide_fast.pipeline",
    "render": "guide_fast.pipeline",
    "rollback": "guide_fast.deltas",
    "save_generator": "guide_fast.pipeline",
}

__all__ = [
    "Config",
    "Delta",
    "Forgotten",
    "Latent",
    "apply_delta",
    "evaluate",
    "evaluate_delta",
    "export",
    "forget",
    "invert_photo",
    "load_generator",
    "render",
    "rollback",
    "save_generator",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("guide-fast")
    if name not in _HOME:
        raise AttributeError(f"module 'guide_fast' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
