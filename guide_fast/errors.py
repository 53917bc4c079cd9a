"""The errors a user can meet, each carrying the exit code the command line returns for it."""

from __future__ import annotations


class GuideFastError(Exception):
    """Something failed; the message is one sentence with the offending value and the way out.

    `exit_code` is what `guide-fast` returns: 1 failed, 2 wrong use, 3 the evidence falls short,
    4 refused, 5 integrity.
    """

    exit_code = 1


class UsageError(GuideFastError):
    """The caller asked for something impossible: a bad value, a wrong file, an unknown name."""

    exit_code = 2


class EvidenceError(GuideFastError):
    """The run finished, but its measurements fall short of what was requested."""

    exit_code = 3


class RefusedError(GuideFastError):
    """The request is well formed, but going on would do harm (wrong face, poor inversion)."""

    exit_code = 4


class DivergedError(GuideFastError):
    """A loss stopped being finite; the same request would end in the same again.

    `last_good` is what the loop had before (an `ltu.Unlearned`), where somebody wants it.
    """

    last_good: object = None


class IntegrityError(GuideFastError):
    """Bytes are not what their pinned hash says."""

    exit_code = 5


class BusyError(GuideFastError):
    """A server has no place for the request now; the same request may be answered later, or elsewhere."""
