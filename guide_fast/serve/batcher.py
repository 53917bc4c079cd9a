"""Gathers requests into batches, within a bound on what may wait. Imports no torch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from guide_fast.errors import BusyError, UsageError
from guide_fast.serve.metrics import IMAGES, Counter, Gauge, Histogram, Metric
from guide_fast.serve.session import Array, Inputs, Rendered, Session, Version, checked

OUTCOMES = ("served", "refused", "cancelled", "late", "failed")


@dataclass(frozen=True)
class Answer:
    """One image with who made it."""

    image: Array  # [3, R, R] float32
    version: Version
    batch: int  # images that were rendered with it
    waited_seconds: float
    rendered_seconds: float


@dataclass
class _Request:
    inputs: Inputs  # of one
    arrived: float
    deadline: float | None  # nobody waits for it after that
    future: Future[Answer] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[bool, bool]:
        """Only requests of one kind fit in one batch."""
        return self.inputs.z is None, self.inputs.c is None


class Batcher:
    """Renders what `submit` is given, in threads of its own.

    A batch begins when it is full, or when its first request has waited for `max_wait` seconds. The oldest request
    always goes next, with those behind it that fit. At most `queue` requests wait; one more is refused at once, so that
    latency stays bounded. Whatever exchanges the session's weights meanwhile takes effect between batches.
    """

    def __init__(
        self,
        session: Session,
        *,
        max_batch: int | None = None,  # default: as many as are cheaper together
        max_wait: float = 0.005,
        queue: int = 64,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises UsageError for a number out of range."""
        max_batch = session.batch if max_batch is None else max_batch
        for name, value, least in (("max_batch", max_batch, 1), ("queue", queue, 1), ("workers", workers, 1)):
            if value < least:
                raise UsageError(f"{name} = {value} is too small; give at least {least}")
        if not 0 <= max_wait <= 60:
            raise UsageError(f"max_wait = {max_wait} s is out of range; give 0 to 60")
        self.session, self.max_batch, self.max_wait, self.limit = session, max_batch, max_wait, queue
        self._clock = clock
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rendering = 0
        self.requests = Counter(
            "guide_fast_requests_total",
            "Requests by what became of them.",
            known=[{"outcome": outcome} for outcome in OUTCOMES],
        )
        self.latency = Histogram("guide_fast_request_seconds", "From a request to its image.")
        self.waiting = Histogram("guide_fast_wait_seconds", "From a request to the start of its batch.")
        self.rendering = Histogram("guide_fast_batch_seconds", "Rendering of one batch.")
        self.batches = Histogram("guide_fast_batch_images", "Images of one batch.", IMAGES)
        self._workers = [
            threading.Thread(target=self._work, name=f"guide-fast-render-{i}", daemon=True) for i in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def submit(
        self,
        *,
        z: ArrayLike | None = None,  # [Z]
        w: ArrayLike | None = None,  # [D] or [L, D]
        c: ArrayLike | None = None,  # [C]
        truncation: float = 1.0,
        timeout: float | None = None,  # seconds after which nobody wants the image any more
    ) -> Future[Answer]:
        """The image to come; cancel it as long as it waits.

        Raises UsageError for what the session does not take, BusyError when too many wait or after `close`. The future
        fails with BusyError when its time runs out before its turn.
        """
        z, w, c = (None if value is None else _row(value) for value in (z, w, c))
        inputs = checked(self.session.shape, z=z, w=w, c=c, truncation=[truncation])
        if timeout is not None and not timeout > 0:
            raise UsageError(f"timeout = {timeout} s leaves no time; give more than 0")
        now = self._clock()
        request = _Request(inputs, now, None if timeout is None else now + timeout)
        with self._changed:
            if self._closing:
                self.requests.add(outcome="refused")
                raise BusyError("the server is shutting down; ask another one")
            if len(self._waiting) >= self.limit:
                self._drop_unwanted(now)
            if len(self._waiting) >= self.limit:
                self.requests.add(outcome="refused")
                raise BusyError(f"{self.limit} requests wait already; try again later")
            self._waiting.append(request)
            self._changed.notify_all()
        return request.future

    @property
    def depth(self) -> int:
        """Requests that wait."""
        with self._changed:
            return len(self._waiting)

    @property
    def busy(self) -> int:
        """Batches that are being rendered."""
        with self._changed:
            return self._rendering

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def metrics(self) -> list[Metric]:
        """What was counted, for a registry."""
        depth = Gauge("guide_fast_queue_requests", "Requests that wait.", lambda: self.depth)
        limit = Gauge("guide_fast_queue_limit", "Requests that may wait.", lambda: self.limit)
        return [self.requests, self.latency, self.waiting, self.rendering, self.batches, depth, limit]

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests; render those that wait, or refuse them without `drain`, or once `timeout` has passed.

        Returns when no batch is left, at the latest one batch after `timeout`. Whether all that waited was rendered.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            if drain:
                self._changed.wait_for(lambda: not self._waiting and not self._rendering, timeout)
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for request in left:
            self._refuse(request, "refused", "the server has shut down before this request's turn; ask another one")
        for worker in self._workers:
            worker.join()
        return not left

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._render(batch)
            finally:
                with self._changed:
                    self._rendering -= 1
                    self._changed.notify_all()

    def _next(self) -> list[_Request] | None:
        """The next batch, all of its futures running; None when there will be none."""
        with self._changed:
            while True:
                self._drop_unwanted(self._clock())
                if not self._waiting:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                fitting = [request for request in self._waiting if request.kind == first.kind][: self.max_batch]
                left = first.arrived + self.max_wait - self._clock()
                if len(fitting) < self.max_batch and left > 0 and not self._closing:
                    self._changed.wait(left)
                    continue
                taken = {id(request) for request in fitting}
                self._waiting = deque(request for request in self._waiting if id(request) not in taken)
                batch = [request for request in fitting if request.future.set_running_or_notify_cancel()]
                if len(batch) < len(fitting):
                    self.requests.add(len(fitting) - len(batch), outcome="cancelled")
                if batch:
                    self._rendering += 1
                    return batch

    def _render(self, batch: list[_Request]) -> None:
        begun = self._clock()
        try:
            made = self._rendered([request.inputs for request in batch])
            answered = list(zip(batch, made.images, strict=True))
        except Exception as error:  # whatever it is, this thread has to serve the next batch
            self.requests.add(len(batch), outcome="failed")
            for request in batch:
                request.future.set_exception(error)
            return
        done = self._clock()
        self.rendering.add(done - begun)
        self.batches.add(len(batch))
        for request, image in answered:
            waited = begun - request.arrived
            self.waiting.add(waited)
            self.latency.add(done - request.arrived)
            self.requests.add(outcome="served")
            request.future.set_result(Answer(image, made.version, len(batch), waited, done - begun))

    def _rendered(self, inputs: list[Inputs]) -> Rendered:
        z, w, c = (_joined([getattr(one, name) for one in inputs]) for name in ("z", "w", "c"))
        truncation = np.concatenate([one.truncation for one in inputs])
        if w is None:
            return self.session.render(z=z, c=c, truncation=truncation)
        return self.session.render(w=w, c=c, truncation=truncation)

    def _drop_unwanted(self, now: float) -> None:
        """Take out what was cancelled or is late; the lock is held."""
        kept: deque[_Request] = deque()
        for request in self._waiting:
            if request.future.cancelled():
                self.requests.add(outcome="cancelled")
                request.future.set_running_or_notify_cancel()
            elif request.deadline is not None and now >= request.deadline:
                self._refuse(request, "late", f"not begun within {request.deadline - request.arrived:g} s; ask later")
            else:
                kept.append(request)
        self._waiting = kept

    def _refuse(self, request: _Request, outcome: str, reason: str) -> None:
        if request.future.set_running_or_notify_cancel():
            self.requests.add(outcome=outcome)
            request.future.set_exception(BusyError(reason))
        else:
            self.requests.add(outcome="cancelled")


def _row(value: ArrayLike) -> Array:
    """[1, ...]; what is no array of numbers stays none, which `checked` refuses by name."""
    try:
        return np.asarray(value, np.float32)[None]
    except (TypeError, ValueError):
        return np.array(["no number"])


def _joined(values: list[Array | None]) -> Array | None:
    rows = [value for value in values if value is not None]
    return np.concatenate(rows) if rows else None
