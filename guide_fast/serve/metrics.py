"""Counters, gauges, histograms as Prometheus reads them. Imports no torch."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from guide_fast.errors import UsageError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32)

Labels = tuple[tuple[str, str], ...]


class Metric:
    """A name with its help; values by label."""

    kind = "untyped"

    def __init__(self, name: str, help_text: str) -> None:
        self.name, self.help = name, help_text
        self._lock = threading.Lock()

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """(ending of the name, labels, value)."""
        raise NotImplementedError

    def text(self) -> Iterator[str]:
        """Lines of the exposition format."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for ending, labels, value in self.samples():
            inside = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
            yield f"{self.name}{ending}{f'{{{inside}}}' if inside else ''} {_number(value)}"


class Counter(Metric):
    """Only rises."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, *, known: Sequence[Mapping[str, str]] = ()) -> None:
        """`known` labels are there from the start, at 0."""
        super().__init__(name, help_text)
        self._values: dict[Labels, float] = {_labels(labels): 0.0 for labels in known}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Raises UsageError for an amount below 0."""
        if amount < 0:
            raise UsageError(f"{self.name} only rises; {amount} cannot be added")
        key = _labels(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def value(self, **labels: str) -> float:
        """0 for labels that were never counted."""
        with self._lock:
            return self._values.get(_labels(labels), 0.0)

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """One for each set of labels."""
        with self._lock:
            values = sorted(self._values.items())
        return (("", labels, value) for labels, value in values)


class Gauge(Metric):
    """What `read` says at that moment: a value, or values by labels."""

    kind = "gauge"

    def __init__(
        self, name: str, help_text: str, read: Callable[[], float | Mapping[tuple[tuple[str, str], ...], float]]
    ) -> None:
        super().__init__(name, help_text)
        self._read = read

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """One for each set of labels."""
        found = self._read()
        values = found if isinstance(found, Mapping) else {(): found}
        return (("", labels, value) for labels, value in values.items())


class Histogram(Metric):
    """How many values lie below each bound, with their sum."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help_text)
        self.bounds = tuple(sorted(bounds))
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """A value; a bound is in its own bucket."""
        place = bisect_left(self.bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    @property
    def count(self) -> int:
        """Values so far."""
        with self._lock:
            return sum(self._counts)

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Cumulative buckets, sum, count."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        below = 0
        for bound, count in zip((*self.bounds, math.inf), counts, strict=True):
            below += count
            yield "_bucket", (("le", _number(bound)),), below
        yield "_sum", (), total
        yield "_count", (), below


class Registry:
    """All metrics of a server."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = list(metrics)

    def add(self, metric: Metric) -> None:
        """One more; raises UsageError for a name that is taken."""
        if any(other.name == metric.name for other in self._metrics):
            raise UsageError(f"there is a metric {metric.name} already; name this one otherwise")
        self._metrics.append(metric)

    def text(self) -> str:
        """The exposition format."""
        return "\n".join(line for metric in self._metrics for line in metric.text()) + "\n"


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted((key, str(value)) for key, value in labels.items()))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if float(value).is_integer() else repr(float(value))
