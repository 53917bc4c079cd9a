"""What a door raises: one sentence with the offending value."""

from __future__ import annotations


class KernelError(ValueError):
    """An input that an operation does not take."""


class ImplementationUnavailable(RuntimeError):
    """An implementation asked for by name that cannot run here; the message says why."""
