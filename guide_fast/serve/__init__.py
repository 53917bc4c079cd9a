"""Rendering for others: sessions whose weights are exchanged while they render, batching, HTTP.

The names load on first use. None of them imports torch, except what serves a PyTorch generator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guide_fast.serve.batcher import Answer, Batcher
    from guide_fast.serve.onnx_session import OnnxSession
    from guide_fast.serve.opening import open_session
    from guide_fast.serve.server import Server
    from guide_fast.serve.serving import Serving
    from guide_fast.serve.session import Rendered, Session, Swap, Version
    from guide_fast.serve.torch_session import TorchSession

_HOME = {
    "Answer": "guide_fast.serve.batcher",
    "Batcher": "guide_fast.serve.batcher",
    "OnnxSession": "guide_fast.serve.onnx_session",
    "Rendered": "guide_fast.serve.session",
    "Server": "guide_fast.serve.server",
    "Serving": "guide_fast.serve.serving",
    "Session": "guide_fast.serve.session",
    "Swap": "guide_fast.serve.session",
    "TorchSession": "guide_fast.serve.torch_session",
    "Version": "guide_fast.serve.session",
    "open_session": "guide_fast.serve.opening",
}

__all__ = [
    "Answer",
    "Batcher",
    "OnnxSession",
    "Rendered",
    "Server",
    "Serving",
    "Session",
    "Swap",
    "TorchSession",
    "Version",
    "open_session",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'guide_fast.serve' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
