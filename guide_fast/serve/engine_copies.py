"""Two copies of something that is changed in place, so that one serves while the other is changed.

A batch leases the copy that is current; a change is made to the other one when its last lease has ended, and becomes
current by one store. Whoever reads sees one version whole.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from guide_fast.errors import UsageError

C = TypeVar("C")
K = TypeVar("K", bound=Hashable)


class EngineCopies(Generic[C, K]):
    """At most two copies; `change` for one caller at a time, `leased` for any number."""

    def __init__(self, make: Callable[[], C]) -> None:
        """`make` builds a copy at the values that all of them begin with."""
        self._make = make
        self._current: C | None = make()
        self._spare: C | None = None
        self._behind: dict[K, Any] = {}  # what the spare copy lacks
        self._since: dict[K, Any] = {}  # what a new copy would lack
        self._leases: dict[int, int] = {}
        self._turn = threading.Condition()

    @contextlib.contextmanager
    def leased(self, read: Callable[[], Any]) -> Iterator[tuple[C, Any]]:
        """The current copy with what `read` returns at that moment; it is not changed before the lease ends.

        Raises UsageError after `drop`.
        """
        with self._turn:
            seen, copy = read(), self._current
            if copy is None:
                raise UsageError("this session is closed; open another one")
            self._leases[id(copy)] = self._leases.get(id(copy), 0) + 1
        try:
            yield copy, seen
        finally:
            with self._turn:
                self._leases[id(copy)] -= 1
                self._turn.notify_all()

    def prepare(self, values: Mapping[K, Any], write: Callable[[C, Mapping[K, Any]], None]) -> C:
        """The other copy after `write` has put into it all it lacks, `values` last.

        Where `write` raises, that copy is dropped, and the current one goes on.
        """
        spare, behind = self._spare, self._behind
        self._spare = None  # until it is whole again
        if spare is None:
            spare, behind = self._make(), self._since
        with self._turn:
            self._turn.wait_for(lambda: not self._leases.get(id(spare)))
        write(spare, {**behind, **values})
        return spare

    def exchange(self, copy: C, values: Mapping[K, Any], store: Callable[[], None]) -> None:
        """Make `copy`, which `prepare` returned for `values`, the current one; `store` runs at the same moment."""
        with self._turn:
            self._current, self._spare = copy, self._current
            store()
        self._behind = dict(values)
        self._since |= values

    def drop(self) -> None:
        """Let go of both; leases that have begun keep theirs."""
        with self._turn:
            self._current = self._spare = None
