"""Cache files of what is computed from pinned weights, each of which vouches for its own bytes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast.artifacts import read_safetensors, tensors_sha256, write_safetensors
from guide_fast.errors import GuideFastError

_log = logging.getLogger(__name__)


def derived(
    folder: Path | None,
    name: str,
    kind: str,
    key: Mapping[str, Any],
    make: Callable[[], dict[str, Tensor]],
    *,
    write: bool = True,
) -> dict[str, Tensor]:
    """What `make` returns, kept in `folder` (None: nowhere) for the next time the same `key` is asked for.

    `key` (plain JSON values) holds everything that the tensors depend on; the file is `<name>-<hash of key>`. A file
    whose bytes are damaged or that belongs to another key is made anew, with a warning in the log; one that cannot be
    written costs a warning only. Without `write` the folder stays as it is.
    """
    if folder is None:
        return _plain(make())
    text = json.dumps(key, sort_keys=True)
    path = Path(folder) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    found = _read(path, kind, json.loads(text)) if path.exists() else None
    if found is not None:
        return found
    tensors = _plain(make())
    if not write:
        return tensors
    try:
        write_safetensors(path, tensors, kind, {"key": key, "sha256": tensors_sha256(tensors)})
    except GuideFastError as error:
        _log.warning("the %s is not cached, the next run makes it again: %s", kind, error)
    return tensors


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # as a file would give them back: another memory layout sums in another order, which changes the last bits
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _read(path: Path, kind: str, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
    try:
        tensors, metadata = read_safetensors(path, kind)
        if metadata.get("key") != key:
            reason = "it belongs to another generator or other settings"
        # safetensors checks its header only: a flipped bit in a tensor would read as a number like any other
        elif metadata.get("sha256") != tensors_sha256(tensors):
            reason = "its bytes are damaged"
        else:
            return tensors
    except GuideFastError as error:
        reason = str(error)
    _log.warning("the cached %s %s is not used, it is made anew: %s", kind, path, reason)
    return None
