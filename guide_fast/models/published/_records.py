"""Inert records that stand for what a pickle describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guide_fast.errors import IntegrityError, RefusedError

# Operations of all pickles in one file together; a published EG3D file takes 60,000, and each may cost some 200 bytes.
MOST_OPERATIONS = 2_000_000
DEEPEST_PICKLE = 3  # a pickle, the torch file in its bytes
MOST_DIMENSIONS = 8
_MOST_NODES = 20_000  # of one value turned to JSON
_DEEPEST_VALUE = 12
_DEEPEST_MODULE = 32
_LONGEST_TEXT = 1000  # of a setting, a name
_SCATTERED = 4  # a tensor's extent in its storage, in multiples of its size


@dataclass
class Budget:
    """What one file may still cost; shared by the pickles nested in it."""

    file_bytes: int
    operations: int = MOST_OPERATIONS
    text_bytes: int = 64 << 20

    def text(self, count: int) -> None:
        """Take `count` bytes of text or keys; raises RefusedError when the file asks for too many."""
        self.text_bytes -= count
        if self.text_bytes < 0:
            raise RefusedError("the file holds more text than any published checkpoint; get it from its publisher")


@dataclass(frozen=True)
class Global:
    """A name that a pickle refers to; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """An object of a listed class: what it was called with, what was put into it."""

    kind: Global
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(eq=False)
class Persistent:
    """An object whose class came along as source text; the text is not kept."""

    class_name: str
    state: dict[str, Any]


@dataclass(eq=False)
class Storage:
    """Numbers in the file; `data` arrives after the pickle that names it."""

    dtype: torch.dtype
    numel: int
    data: memoryview | None = field(default=None, repr=False)

    @property
    def num_bytes(self) -> int:
        """Size of the numbers."""
        return self.numel * self.dtype.itemsize


@dataclass(eq=False)
class TensorRecord:
    """A view into a storage, checked to lie inside it without covering a number twice on purpose."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or len(self.size) != len(self.stride):
            raise IntegrityError("a tensor has a damaged shape; get the file again")
        if len(self.size) > MOST_DIMENSIONS:
            raise RefusedError(f"a tensor has {len(self.size)} dimensions; {MOST_DIMENSIONS} are allowed")
        if self.numel == 0:
            return
        if self._last >= self.storage.numel or self.numel > self.storage.numel:
            raise IntegrityError(
                f"a tensor of shape {list(self.size)} reaches past its {self.storage.numel} stored numbers; "
                "get the file again"
            )
        if self._last - self.offset >= _SCATTERED * self.numel:  # copying it would cost more than it is worth
            raise RefusedError(f"the numbers of a tensor of shape {list(self.size)} lie scattered; save it contiguous")

    @property
    def _last(self) -> int:
        steps = zip(self.size, self.stride, strict=True)
        return self.offset + sum((n - 1) * step for n, step in steps)

    @property
    def numel(self) -> int:
        """How many numbers it shows."""
        return math.prod(self.size)

    def tensor(self) -> Tensor:
        """A contiguous copy on the CPU; raises IntegrityError when the numbers never arrived."""
        data = self.storage.data
        if data is None or len(data) != self.storage.num_bytes:
            raise IntegrityError("a tensor's numbers are missing; the file is cut short, get it again")
        if self.numel == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        width = self.storage.dtype.itemsize
        part = data[self.offset * width : (self._last + 1) * width]
        # the bytes need not be aligned in the file: copy them first, give them their type afterwards
        flat = torch.frombuffer(part, dtype=torch.uint8).clone().view(self.storage.dtype)
        view = flat.as_strided(self.size, self.stride)
        return view if view.is_contiguous() and flat.numel() == self.numel else view.contiguous()


def materialised(records: Mapping[str, TensorRecord], budget: Budget) -> dict[str, Tensor]:
    """Tensors of records; raises RefusedError when together they are larger than the file that holds them."""
    total = sum(record.numel * record.storage.dtype.itemsize for record in records.values())
    if total > budget.file_bytes:
        raise RefusedError(
            f"the tensors take {total:,} bytes, the file has {budget.file_bytes:,}: numbers are shown more than once; "
            "get the file from its publisher"
        )
    return {name: record.tensor() for name, record in records.items()}


def state_of(module: object) -> dict[str, Any]:
    """The attributes of a recorded module; raises IntegrityError when it has none."""
    state = module.state if isinstance(module, Persistent | Instance) else None
    if not isinstance(state, dict):
        raise IntegrityError("a module in the file has no attributes; get the file again")
    return state


def child(module: object, *path: str) -> Persistent | Instance | None:
    """The module at `path` below `module`, None where there is none."""
    for name in path:
        modules = state_of(module).get("_modules")
        module = modules.get(name) if isinstance(modules, dict) else None
        if not isinstance(module, Persistent | Instance):
            return None
    return module if isinstance(module, Persistent | Instance) else None


def module_tensors(module: object) -> dict[str, TensorRecord]:
    """Every parameter with every buffer below `module`, by its dotted name; raises as the records do."""
    found: dict[str, TensorRecord] = {}
    visits = [0]

    def visit(module: object, prefix: str, depth: int) -> None:
        visits[0] += 1
        if depth > _DEEPEST_MODULE or visits[0] > _MOST_NODES:
            raise RefusedError("modules are nested without end; get the file from its publisher")
        state = state_of(module)
        for kind in ("_parameters", "_buffers"):
            for name, value in _named(state, kind):
                if isinstance(value, TensorRecord):
                    found[prefix + name] = value
                elif value is not None:
                    raise IntegrityError(f"{prefix}{name} is no tensor; get the file again")
        for name, value in _named(state, "_modules"):
            if value is not None:
                visit(value, f"{prefix}{name}.", depth + 1)

    visit(module, "", 0)
    return found


def _named(state: dict[str, Any], kind: str) -> list[tuple[str, Any]]:
    values = state.get(kind, {})
    if not isinstance(values, dict) or not all(isinstance(k, str) and len(k) <= _LONGEST_TEXT for k in values):
        raise IntegrityError(f"a module's {kind} are damaged; get the file again")
    return list(values.items())


def plain(value: Any) -> Any:
    """`value` as JSON has it; raises RefusedError for what it cannot say or what has no end."""
    left = [_MOST_NODES]

    def convert(value: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > _DEEPEST_VALUE:
            raise RefusedError("a setting in the file is nested without end; get the file from its publisher")
        if value is None or isinstance(value, bool) or _is_short(value):
            return value
        if isinstance(value, int) and abs(value) < 1 << 62:
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        if isinstance(value, list | tuple):
            return [convert(item, depth + 1) for item in value]
        if isinstance(value, dict) and all(_is_short(key) for key in value):
            return {key: convert(item, depth + 1) for key, item in value.items()}
        raise RefusedError(f"a setting in the file is a {type(value).__name__} that JSON cannot say")

    return convert(value, 0)


def shown(value: object) -> str:
    """`value` for a message; only its type where spelling it out could take for ever."""
    if value is None or isinstance(value, str | int | float):
        return ascii(value[:40] if isinstance(value, str) else value)
    return f"a {type(value).__name__}"


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT
