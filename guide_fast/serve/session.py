"""What a session is: a generator that renders for many threads while its weights may be exchanged. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guide_fast.errors import UsageError

Array = NDArray[Any]
TRUNCATION = (-2.0, 2.0)  # beyond these a latent is no face any more


@dataclass(frozen=True)
class Version:
    """Which weights these are."""

    weights_sha256: str
    lineage: tuple[str, ...] = ()  # sha256 of the deltas applied, in order

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"weights_sha256": self.weights_sha256, "lineage": list(self.lineage)}


@dataclass(frozen=True)
class Rendered:
    """A batch with the version that made every one of its images."""

    images: Array  # [N, 3, R, R] float32 in [-1, 1] (values may overshoot slightly)
    version: Version


@dataclass(frozen=True)
class Swap:
    """An exchange of weights that has taken place."""

    before: Version
    after: Version
    prepare_seconds: float  # reading, checking, building aside, while the old weights render
    exchange_seconds: float  # from the last batch on the old weights to the first on the new ones


@dataclass(frozen=True)
class Shape:
    """What a generator takes, what it makes."""

    name: str  # of the generator
    z_dim: int
    num_ws: int  # L
    w_dim: int  # D
    c_dim: int  # 0 without conditioning
    resolution: int
    c_needed: bool = False  # whether every z needs a label


@runtime_checkable
class Session(Protocol):
    """A generator that renders, from any number of threads at a time.

    A batch is rendered by exactly one version, the one that its `Rendered` names. `apply` and `rollback` build the next
    version aside, then exchange it between two batches; where they raise, the old version goes on.
    """

    shape: Shape
    runtime: str  # "torch", "onnx"
    batch: int  # images that are cheaper together than one by one; 1 where they are not

    @property
    def version(self) -> Version:
        """The version that the next batch is rendered by."""
        ...

    def render(
        self,
        *,
        z: ArrayLike | None = None,  # [N, Z]
        w: ArrayLike | None = None,  # [N, D] or [N, L, D]
        c: ArrayLike | None = None,  # [N, C]: class labels, or cameras
        truncation: ArrayLike = 1.0,  # 1 as given, 0 the mean face; one for all, or [N]
    ) -> Rendered:
        """Images of z or w; raises UsageError on what does not fit `shape`, or after `close`."""
        ...

    def apply(self, delta: Path) -> Swap:
        """The next version; raises UsageError for a delta of other weights, IntegrityError for a damaged one."""
        ...

    def rollback(self) -> Swap:
        """The version before the last delta that this session applied; raises UsageError where there is none."""
        ...

    def warm_up(self) -> float:
        """Seconds of one batch of every size that will be rendered."""
        ...

    def close(self) -> None:
        """Free the weights; batches that have begun are finished."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What to render, checked: fp32, C-contiguous."""

    z: Array | None  # [N, Z]
    w: Array | None  # [N, L, D]
    c: Array | None  # [N, C]
    truncation: Array  # [N]

    def __len__(self) -> int:
        return len(self.truncation)

    def part(self, begin: int, end: int) -> Inputs:
        """Some of them."""
        at = slice(begin, end)
        z, w, c = (None if value is None else value[at] for value in (self.z, self.w, self.c))
        return Inputs(z, w, c, self.truncation[at])


def checked(
    shape: Shape,
    *,
    z: ArrayLike | None = None,
    w: ArrayLike | None = None,
    c: ArrayLike | None = None,
    truncation: ArrayLike = 1.0,
) -> Inputs:
    """The inputs of `Session.render`; raises UsageError naming what does not fit."""
    if (z is None) == (w is None):
        raise UsageError(f"{'neither' if z is None else 'both'} of z and w given; give one of them")
    latents = (
        _array("z", z, (shape.z_dim,)) if w is None else _array("w", w, (shape.w_dim,), (shape.num_ws, shape.w_dim))
    )
    count = len(latents)
    if latents.ndim == 2 and w is not None:
        latents = np.repeat(latents[:, None], shape.num_ws, axis=1)
    label = None if c is None else _label(shape, c, count)
    if label is None and shape.c_needed and w is None:
        raise UsageError(f"{shape.name} needs a label for every z; give c with {shape.c_dim} numbers for each")
    amount = np.asarray(truncation, np.float32)
    if amount.ndim > 1 or (amount.ndim and len(amount) != count) or not np.isfinite(amount).all():
        raise UsageError(f"truncation is {_said(amount)}; give one finite number, or one for each of {count}")
    low, high = TRUNCATION
    if amount.size and not (low <= amount.min() and amount.max() <= high):
        raise UsageError(f"truncation is {_said(amount)}; give numbers from {low:g} to {high:g}")
    amount = np.broadcast_to(amount, (count,)).copy()
    return Inputs(latents if w is None else None, latents if w is not None else None, label, amount)


def _label(shape: Shape, c: ArrayLike, count: int) -> Array:
    if not shape.c_dim:
        raise UsageError(f"{shape.name} takes no conditioning; leave c out")
    label = _array("c", c, (shape.c_dim,))
    if len(label) != count:
        raise UsageError(f"c has {len(label)} rows for {count} latents; give one for each")
    return label


def _array(name: str, value: ArrayLike | None, *rows: tuple[int, ...]) -> Array:
    """[N, *row] for one of `rows`, fp32, at least one row."""
    try:
        array = np.ascontiguousarray(np.asarray(value, dtype=np.float32))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is no array of numbers; give {_shapes(rows)}") from None
    if array.shape[1:] not in rows or not len(array):
        raise UsageError(f"{name} has shape {list(array.shape)}; give {_shapes(rows)}")
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise UsageError(f"{name} holds {array[tuple(place)]} at {place}; give finite numbers only")
    return array


def _shapes(rows: tuple[tuple[int, ...], ...]) -> str:
    return " or ".join(f"[N, {', '.join(map(str, row))}]" for row in rows)


def _said(amount: Array) -> str:
    return f"{amount.item():g}" if amount.ndim == 0 else f"of shape {list(amount.shape)} with {amount.flat[0]:g} first"
