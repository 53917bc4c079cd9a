"""What the door for checkpoints may answer, whatever the file holds."""

from __future__ import annotations

import json
from pathlib import Path

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.models import loading
from guide_fast.models.checkpoint import Published, read_checkpoint


def answer(path: Path) -> str:
    """What the door says of the file: "Published", or the name of a clean error.

    Raises whatever else it does, AssertionError where what it lets through breaks a promise: plain finite numbers that
    fit the file, settings that are JSON, from which the library builds the generator or says that it knows none such.
    """
    try:
        found = read_checkpoint(path)
    except GuideFastError as error:
        assert str(error), "an error without words"
        return type(error).__name__
    assert isinstance(found, Published)
    assert json.loads(json.dumps(found.config, allow_nan=False)) == found.config
    total = 0
    for name, tensor in found.tensors.items():
        assert tensor.is_contiguous() and tensor.is_floating_point(), f"{name} is {tensor.dtype}"
        assert tensor.isfinite().all(), f"{name} is not finite"
        total += tensor.numel() * tensor.element_size()
    assert total <= path.stat().st_size, f"{total} bytes of numbers"
    try:
        loading.from_tensors(found.tensors, found.config)
    except UsageError as error:
        assert str(error), "an error without words"
        return "Published, not built"
    except GuideFastError as error:
        raise AssertionError(f"let through, then refused: {error}") from error
    return "Published"
