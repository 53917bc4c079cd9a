"""What torch.compile may take as a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """`function` itself, marked: torch.compile calls it once and keeps the result (torch's decorator has no types)."""
    return torch.compiler.assume_constant_result(function)
