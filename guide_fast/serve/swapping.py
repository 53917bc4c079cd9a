"""The protocol by which weights are exchanged under renders: build aside, check, store."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from guide_fast.errors import UsageError
from guide_fast.serve.session import Array, Inputs, Rendered, Shape, Swap, Version, checked


class Weights(Protocol):
    """One version, complete; never changed once a batch may have seen it."""

    @property
    def version(self) -> Version:
        """Which one."""
        ...


class Change(Protocol):
    """A delta that has been read."""

    @property
    def sha256(self) -> str:
        """Of its file."""
        ...


W = TypeVar("W", bound=Weights)
D = TypeVar("D", bound=Change)


class SwappingSession(ABC, Generic[W, D]):
    """What sessions share: exchanges happen one at a time; each builds its version from the one that is current, and
    stores it only after every check has passed.
    """

    runtime = "none"
    batch = 1

    def __init__(self, shape: Shape, weights: W) -> None:
        self.shape = shape
        self._weights: W | None = weights
        self._applied: list[D] = []
        self._exchanging = threading.Lock()

    @property
    def version(self) -> Version:
        """The version that the next batch is rendered by; raises UsageError after `close`."""
        return self._current().version

    def render(
        self,
        *,
        z: ArrayLike | None = None,  # [N, Z]
        w: ArrayLike | None = None,  # [N, D] or [N, L, D]
        c: ArrayLike | None = None,  # [N, C]
        truncation: ArrayLike = 1.0,
    ) -> Rendered:
        """As `Session.render`."""
        return self._rendered(checked(self.shape, z=z, w=w, c=c, truncation=truncation))

    def apply(self, delta: Path) -> Swap:
        """As `Session.apply`."""
        with self._exchanging:
            begun = time.perf_counter()
            change = self._read(Path(delta))
            swap = self._exchange(change, undo=False, begun=begun)
            self._applied.append(change)
            return swap

    def rollback(self) -> Swap:
        """As `Session.rollback`."""
        with self._exchanging:
            if not self._applied:
                raise UsageError(
                    "this session has applied no delta that it could roll back; start one from the earlier weights"
                )
            swap = self._exchange(self._applied[-1], undo=True, begun=time.perf_counter())
            del self._applied[-1]
            return swap

    def warm_up(self) -> float:
        """As `Session.warm_up`."""
        begun = time.perf_counter()
        z = np.zeros((1, self.shape.z_dim), np.float32)
        z[:, 0] = 1  # a latent at zero has no direction
        c = np.zeros((1, self.shape.c_dim), np.float32) if self.shape.c_needed else None
        for count in self._sizes():
            self.render(z=z.repeat(count, 0), c=None if c is None else c.repeat(count, 0))
        return time.perf_counter() - begun

    def close(self) -> None:
        """As `Session.close`; may be called twice."""
        with self._exchanging:
            self._weights = None
            self._applied.clear()

    def _exchange(self, change: D, *, undo: bool, begun: float) -> Swap:
        before = self._current()
        after = self._changed(before, change, undo=undo)
        prepared = time.perf_counter() - begun
        return Swap(before.version, after.version, prepared, self._store(before, after))

    def _current(self) -> W:
        weights = self._weights
        if weights is None:
            raise UsageError("this session is closed; open another one")
        return weights

    def _sizes(self) -> tuple[int, ...]:
        """Batch sizes that are rendered differently."""
        return (1,)

    @abstractmethod
    def _read(self, delta: Path) -> D:
        """The delta in a file; raises UsageError when it is none, IntegrityError when it is damaged."""

    @abstractmethod
    def _changed(self, weights: W, change: D, *, undo: bool) -> W:
        """A new version, ready to render, hashes checked; leaves `weights` alone."""

    @abstractmethod
    def _store(self, before: W, after: W) -> float:
        """Make `after` what the next batch finds; the seconds that batches had to wait for it."""

    @abstractmethod
    def _rendered(self, inputs: Inputs) -> Rendered:
        """All images by one version; called by several threads at a time."""


class ReferenceSession(SwappingSession[W, D]):
    """A session around one reference to an immutable version.

    A batch reads the reference once, then renders with what it got: nobody waits, and no image has two versions. The
    old version lives until its last batch is done. On a CPU images are rendered one by one (`batch` is 1): a batch
    gains nothing there, and its sums would round by its size, so that an image depended on who else asked.
    """

    def _store(self, before: W, after: W) -> float:
        begun = time.perf_counter()
        self._weights = after
        return time.perf_counter() - begun

    def _rendered(self, inputs: Inputs) -> Rendered:
        weights = self._current()  # read once: whatever is stored meanwhile, this batch has one version
        parts = [inputs.part(i, i + self.batch) for i in range(0, len(inputs), self.batch)]
        return Rendered(np.concatenate([self._images(weights, part) for part in parts]), weights.version)

    @abstractmethod
    def _images(self, weights: W, inputs: Inputs) -> Array:
        """[N, 3, R, R] fp32, by `weights` alone; at most `batch` of them."""
