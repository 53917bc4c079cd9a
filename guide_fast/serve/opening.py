"""Opens a session on whatever was named: an exported folder, a generator. Imports torch for a generator alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guide_fast.errors import UsageError
from guide_fast.serve.session import Session

MANIFEST = "engine.json"


def is_exported(source: str | Path) -> bool:
    """Whether `source` is a folder, which only an exported generator can be."""
    return Path(source).is_dir()


def open_session(
    source: str | Path,
    *,
    device: str | None = None,  # default: a CUDA device where there is one; for an exported folder the CPU
    threads: int | None = None,  # of one batch on the CPU; default: the runtime's own choice
    batch: int | None = None,
    deltas: Sequence[Path] = (),
    label: int | None = None,
) -> Session:
    """A session on a known generator, a generator file, or a folder written by `guide-fast export`.

    `deltas` are applied first, and can be rolled back. Raises UsageError for what cannot be served, IntegrityError for
    damaged files.
    """
    session = (
        _exported(Path(source), device, threads, batch, label)
        if is_exported(source)
        else _generator(str(source), device, threads, batch, label)
    )
    for delta in deltas:
        session.apply(delta)
    return session


def _exported(folder: Path, device: str | None, threads: int | None, batch: int | None, label: int | None) -> Session:
    from guide_fast.export.folder import read_manifest
    from guide_fast.export.tensorrt_flavour import FLAVOURS

    if label is not None:
        raise UsageError(f"{folder} was exported with its labels; send one as c with each request, leave --label out")
    if read_manifest(folder).get("runtime") in FLAVOURS:
        return _engines(folder, device, threads, batch)
    from guide_fast.serve.onnx_session import OnnxSession

    if device not in (None, "cpu"):
        raise UsageError(f"device = {device!r} cannot run an exported ONNX folder; leave it out, or name a generator")
    return OnnxSession(folder, threads=threads)


def _engines(folder: Path, device: str | None, threads: int | None, batch: int | None) -> Session:
    from guide_fast import assets
    from guide_fast.serve.tensorrt_session import TensorrtSession

    kind, _, index = (device or "cuda").partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise UsageError(f"device = {device!r} cannot run TensorRT engines; leave it out, or name cuda or cuda:1")
    if threads is not None:
        raise UsageError(f"TensorRT engines run on a GPU, threads = {threads} means nothing to them; leave it out")
    return TensorrtSession(folder, device=int(index or 0), batch=batch, cache=assets.home() / "derived" / "tensorrt")


def _generator(name: str, device: str | None, threads: int | None, batch: int | None, label: int | None) -> Session:
    import torch

    from guide_fast.pipeline import load_generator
    from guide_fast.serve.static_session import StaticSession
    from guide_fast.serve.torch_session import TorchSession

    if threads is not None:
        torch.set_num_threads(threads)
    generator = load_generator(name, low_resolution=False, label=label)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and torch.cuda.is_available():
        return StaticSession(generator, device=device, batch=batch or 8)
    return TorchSession(generator, device=device, batch=batch)
