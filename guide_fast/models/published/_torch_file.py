"""Files of `torch.save`, the zip form with the older one, read as records."""

from __future__ import annotations

import struct
from typing import Any

from guide_fast.errors import GuideFastError, IntegrityError, RefusedError
from guide_fast.models.published._globals import STORAGES
from guide_fast.models.published._machine import Machine
from guide_fast.models.published._records import DEEPEST_PICKLE, Budget, Global, Storage

ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL = 1001
_MOST_ENTRIES = 100_000


def read_pickle(data: memoryview, budget: Budget, depth: int = 0) -> Any:
    """The records of a bare pickle; raises as `Machine.run`."""
    return Machine(data, budget, _nested(budget, depth)).run()


def read_torch(data: memoryview, budget: Budget, depth: int = 0) -> Any:
    """The records of a torch file.

    Raises IntegrityError for a file that is cut short or promises more numbers than it has, RefusedError as
    `Machine.run`, for compressed entries (torch writes none) or for torch files inside torch files.
    """
    if depth >= DEEPEST_PICKLE:
        raise RefusedError("pickles are nested without end; get the file from its publisher")
    return (_read_zip if data[:4] == ZIP else _read_legacy)(data, budget, depth)


def _nested(budget: Budget, depth: int) -> Any:
    return lambda data: read_torch(data, budget, depth + 1)


def _storage(identity: object, available: int) -> tuple[str, Storage]:
    """Key with storage of a persistent id; nothing is allocated for what it claims."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise RefusedError("the file holds a whole Python object; save its state dict instead")
    _, kind, key, _, numel = identity[:5]
    if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in STORAGES:
        raise RefusedError(f"the file stores numbers as {kind}; none of the known number types")
    if not isinstance(key, str) or type(numel) is not int or numel < 0 or (len(identity) > 5 and identity[5]):
        raise IntegrityError("a storage in the file is damaged; get the file again")
    storage = Storage(STORAGES[kind.name], numel)
    if storage.num_bytes > available:
        raise IntegrityError(
            f"the file claims {storage.num_bytes:,} bytes of numbers where it has {available:,}; get it again"
        )
    return key, storage


def _read_legacy(data: memoryview, budget: Budget, depth: int) -> Any:
    storages: dict[str, Storage] = {}

    def persist(identity: object) -> Storage:
        key, storage = _storage(identity, len(data))
        known = storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise IntegrityError(f"storage {key[:40]!r} has two sizes; get the file again")
        return known

    position, values = 0, []
    for _ in range(5):  # magic, protocol, system, the object, the order of its storages
        machine = Machine(data, budget, _nested(budget, depth), position=position, persist=persist)
        values.append(machine.run())
        position = machine.position
    magic, protocol, system, found, order = values
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict) or not isinstance(order, list):
        raise IntegrityError("the file is no torch file; get it again")
    if system.get("little_endian") is not True:
        raise RefusedError("the file was written on a big-endian computer; save it anew on a usual one")
    for key in order:
        known = storages.get(key) if isinstance(key, str) else None
        if known is None or known.data is not None or position + 8 > len(data):
            raise IntegrityError("the file ends early or lists a storage wrongly; get it again")
        (numel,) = struct.unpack_from("<q", data, position)
        position += 8
        if numel != known.numel or known.num_bytes > len(data) - position:
            raise IntegrityError(
                f"a storage of {known.num_bytes:,} bytes is cut short at {len(data) - position:,}; get the file again"
            )
        known.data = data[position : position + known.num_bytes]
        position += known.num_bytes
    return found


def _read_zip(data: memoryview, budget: Budget, depth: int) -> Any:
    try:
        entries = _entries(data, budget)
    except GuideFastError:
        raise
    except (struct.error, IndexError):
        raise IntegrityError("the zip file ends early or is damaged; get it again") from None
    root = next((name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1), None)
    if root is None:
        raise IntegrityError("the zip file holds no data.pkl, so that torch did not write it; give a torch file")
    folder = root.removesuffix("data.pkl")
    if bytes(entries.get(f"{folder}byteorder", b"little")) != b"little":
        raise RefusedError("the file was written on a big-endian computer; save it anew on a usual one")
    storages: dict[str, Storage] = {}

    def persist(identity: object) -> Storage:
        key, storage = _storage(identity, len(data))
        known = storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise IntegrityError(f"storage {key[:40]!r} has two sizes; get the file again")
        numbers = entries.get(f"{folder}data/{key}")
        if numbers is None or len(numbers) < known.num_bytes:
            raise IntegrityError(
                f"storage {key[:40]!r} claims {known.num_bytes:,} bytes, the file has "
                f"{0 if numbers is None else len(numbers):,}; get it again"
            )
        known.data = numbers[: known.num_bytes]
        return known

    return Machine(entries[root], budget, _nested(budget, depth), persist=persist).run()


def _entries(data: memoryview, budget: Budget) -> dict[str, memoryview]:
    """Name -> bytes of every entry, as views; raises struct.error or IndexError where the file ends early."""
    tail = max(0, len(data) - 65_557)  # the record with the longest comment
    end = bytes(data[tail:]).rfind(b"PK\x05\x06")
    if end < 0:
        raise IntegrityError("the zip file has no directory: it is cut short, get it again")
    end += tail
    count, _, start = struct.unpack_from("<HII", data, end + 10)
    if end >= 20 and bytes(data[end - 20 : end - 16]) == b"PK\x06\x07":
        (wide,) = struct.unpack_from("<Q", data, end - 12)
        _bounded(wide, 56, data)
        count, _, start = struct.unpack_from("<QQQ", data, wide + 32)
    if count > _MOST_ENTRIES:
        raise RefusedError(f"the zip file lists {count:,} entries; {_MOST_ENTRIES:,} are allowed")
    entries: dict[str, memoryview] = {}
    total, place = 0, start
    for _ in range(count):
        _bounded(place, 46, data)
        fields = struct.unpack_from("<4sHHHHHHIIIHHHHHII", data, place)
        signature, flags, method = fields[0], fields[3], fields[4]
        packed, size, name_size, extra_size, comment_size, local = *fields[8:13], fields[16]
        _bounded(place, 46 + name_size + extra_size, data)
        if signature != b"PK\x01\x02" or flags & 1:
            raise IntegrityError("the zip file's directory is damaged; get the file again")
        budget.text(name_size)
        name = bytes(data[place + 46 : place + 46 + name_size]).decode("utf-8", "replace")
        extra = data[place + 46 + name_size : place + 46 + name_size + extra_size]
        size, packed, local = _widened(extra, size, packed, local)
        if method != 0 or size != packed:
            raise RefusedError(f"entry {name[:60]!r} is compressed, which torch never does; get the original file")
        total += size
        if total > len(data) or name in entries:
            raise RefusedError("the zip file's entries overlap; get the file from its publisher")
        _bounded(local, 30, data)
        if data[local : local + 4] != ZIP:
            raise IntegrityError("the zip file's entries are damaged; get the file again")
        name_size_here, extra_size_here = struct.unpack_from("<HH", data, local + 26)
        first = local + 30 + name_size_here + extra_size_here
        _bounded(first, size, data)
        entries[name] = data[first : first + size]
        place += 46 + name_size + extra_size + comment_size
    return entries


def _widened(extra: memoryview, size: int, packed: int, local: int) -> tuple[int, int, int]:
    """Sizes with offset, the 64-bit ones where the 32-bit ones say so."""
    place = 0
    values = [size, packed, local]
    while place + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, place)
        if tag == 1:
            at = place + 4
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    (values[i],) = struct.unpack_from("<Q", extra, at)
                    at += 8
        place += 4 + length
    return values[0], values[1], values[2]


def _bounded(start: int, count: int, data: memoryview) -> None:
    if start < 0 or start + count > len(data):
        raise IntegrityError("the zip file ends early; get it again")
