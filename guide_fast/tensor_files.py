"""The form of guide-fast's safetensors files, read without PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from guide_fast.errors import IntegrityError, UsageError

KEY = "guide_fast"  # the only metadata key: the format's writer keeps several in no fixed order


def header(kind: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file; equal values give equal text."""
    return {KEY: json.dumps({"kind": kind, "content": metadata}, sort_keys=True)}


def read(
    path: Path, kind: str, framework: Literal["pt", "np"], *, tensors: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of `framework` with the metadata of a file of `kind`; without `tensors` it costs the head of the file.

    Raises UsageError when there is no such file, IntegrityError when its bytes are damaged.
    """
    path = Path(path)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {reason}; give a {kind} file (.safetensors)")
    try:
        with safe_open(path, framework) as file:
            found = json.loads((file.metadata() or {}).get(KEY, "{}"))
            if not isinstance(found, dict):
                raise IntegrityError(f"{path} has a damaged header; restore it from a good copy")
            if found.get("kind") != kind:
                other = found.get("kind") or "another program's file"
                raise UsageError(f"{path} is {other}, not a {kind}; give a {kind} file written by guide-fast")
            names = list(file.keys()) if tensors else []
            return {name: file.get_tensor(name) for name in names}, found["content"]
    except PermissionError:
        raise UsageError(f"{path} cannot be read (permission denied); change its permissions") from None
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise IntegrityError(
            f"{path} is damaged or no safetensors file ({error}); restore it from a good copy"
        ) from None


def digest(
    tensors: Iterable[tuple[str, str, tuple[int, ...], Any]],  # name, "torch.float32", shape, bytes in row order
) -> str:
    """Hash of names, dtypes, shapes, bytes; the caller gives them in the order of the names."""
    total = hashlib.sha256()
    for name, dtype, shape, data in tensors:
        total.update(f"{name}:{dtype}:{shape};".encode())
        total.update(data)
    return total.hexdigest()
