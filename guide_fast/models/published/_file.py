"""A checkpoint's bytes, before anything in them is believed."""

from __future__ import annotations

from pathlib import Path

from guide_fast.errors import IntegrityError, UsageError

LARGEST_FILE = 4 << 30  # bytes; the largest published checkpoint has a quarter


def read_bytes(path: Path, kind: str, wanted: str) -> bytearray:
    """The file's bytes, in memory of our own: a file that changes meanwhile cannot change what was checked.

    `kind` (plural) and `wanted` are for the messages. Raises UsageError when there is no such file, it is too large or
    cannot be read, IntegrityError when it changes meanwhile.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {reason}; give a {wanted}")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > LARGEST_FILE:
                raise UsageError(f"{path} has {size:,} bytes; {kind} up to {LARGEST_FILE:,} are read")
            data = bytearray(size)
            file.seek(0)
            if file.readinto(data) != size:
                raise IntegrityError(f"{path} changed while it was read; try again")
            return data
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from None
