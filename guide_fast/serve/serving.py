"""A session at work: its batches, its exchanges of weights, what both report. Imports no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from guide_fast.errors import BusyError, GuideFastError
from guide_fast.serve.batcher import Answer, Batcher
from guide_fast.serve.metrics import Counter, Gauge, Histogram, Registry
from guide_fast.serve.session import Session, Swap

EXCHANGE_SECONDS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)

log = logging.getLogger(__name__)


class Serving:
    """What a server, or a program without one, asks for images and for the next version.

    `apply` and `rollback` raise as the session's do: the weights before then go on.
    """

    def __init__(self, session: Session, **batching: Any) -> None:
        """`batching` goes to `Batcher`."""
        self.session = session
        self.batcher = Batcher(session, **batching)
        self._swaps = Counter(
            "guide_fast_swaps_total",
            "Exchanges of weights that were asked for.",
            known=[{"kind": kind, "outcome": end} for kind in ("apply", "rollback") for end in ("done", "refused")],
        )
        self._prepare = Histogram("guide_fast_swap_prepare_seconds", "Building the next weights aside.")
        self._exchange = Histogram(
            "guide_fast_swap_exchange_seconds", "Exchanging the weights between two batches.", EXCHANGE_SECONDS
        )
        self._started = time.time()
        self._version = session.version  # stays readable after `close`
        self.registry = Registry(*self.batcher.metrics(), self._swaps, self._prepare, self._exchange)
        self.registry.add(Gauge("guide_fast_weights_info", "The weights that render now.", self._weights))
        self.registry.add(Gauge("guide_fast_start_time_seconds", "When it started.", lambda: self._started))

    def submit(self, **request: Any) -> Future[Answer]:
        """As `Batcher.submit`."""
        return self.batcher.submit(**request)

    def apply(self, delta: Path) -> Swap:
        """As `Session.apply`."""
        return self._swapped("apply", lambda: self.session.apply(delta))

    def rollback(self) -> Swap:
        """As `Session.rollback`."""
        return self._swapped("rollback", self.session.rollback)

    def describe(self) -> dict[str, Any]:
        """Generator, runtime, version as plain values."""
        shape = self.session.shape
        return {
            "generator": shape.name,
            "runtime": self.session.runtime,
            "resolution": shape.resolution,
            "z_dim": shape.z_dim,
            "w_shape": [shape.num_ws, shape.w_dim],
            "c_dim": shape.c_dim,
            **self._version.to_dict(),
        }

    def close(self, *, timeout: float | None = None) -> bool:
        """Render what waits, for at most `timeout` seconds; free the weights. Whether nothing had to be refused."""
        drained = self.batcher.close(timeout=timeout)
        self.session.close()
        return drained

    def _swapped(self, kind: str, swap: Callable[[], Swap]) -> Swap:
        if self.batcher.closing:
            raise BusyError("the server is shutting down; its weights stay as they are")
        try:
            done = swap()
        except Exception as error:
            self._swaps.add(kind=kind, outcome="refused")
            said = str(error) if isinstance(error, GuideFastError) else type(error).__name__
            log.warning("%s refused, %s renders on: %s", kind, self._version.weights_sha256[:12], said)
            raise
        self._version = done.after
        self._swaps.add(kind=kind, outcome="done")
        self._prepare.add(done.prepare_seconds)
        self._exchange.add(done.exchange_seconds)
        log.info(
            "%s: %s -> %s, prepared in %.0f ms, exchanged in %.0f us",
            kind,
            done.before.weights_sha256[:12],
            done.after.weights_sha256[:12],
            done.prepare_seconds * 1e3,
            done.exchange_seconds * 1e6,
        )
        return done

    def _weights(self) -> dict[tuple[tuple[str, str], ...], float]:
        version = self._version
        return {(("deltas", str(len(version.lineage))), ("sha256", version.weights_sha256)): 1.0}
