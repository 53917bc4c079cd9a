"""Metrics count what they are told, in the text that Prometheus reads."""

from __future__ import annotations

import threading

import pytest

from guide_fast.errors import UsageError
from guide_fast.serve.metrics import Counter, Gauge, Histogram, Registry


def test_counter_counts_by_label_and_starts_at_zero() -> None:
    counter = Counter("images_total", "Images.", known=[{"outcome": "served"}, {"outcome": "refused"}])
    counter.add(outcome="served")
    counter.add(2, outcome="served")
    assert list(counter.text()) == [
        "# HELP images_total Images.",
        "# TYPE images_total counter",
        'images_total{outcome="refused"} 0',
        'images_total{outcome="served"} 3',
    ]
    assert (counter.value(outcome="served"), counter.value(outcome="late")) == (3, 0)
    with pytest.raises(UsageError, match="only rises"):
        counter.add(-1)


def test_histogram_is_cumulative_and_a_bound_is_in_its_bucket() -> None:
    histogram = Histogram("seconds", "Time.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    assert list(histogram.text())[2:] == [
        'seconds_bucket{le="0.1"} 2',
        'seconds_bucket{le="1"} 3',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 7.65",
        "seconds_count 4",
    ]
    assert histogram.count == 4


def test_gauge_is_read_when_asked() -> None:
    values = [1.5]
    gauge = Gauge("depth", "Depth.", lambda: values[0])
    values[0] = 2.5
    assert list(gauge.text())[-1] == "depth 2.5"
    labelled = Gauge("info", "Info.", lambda: {(("sha256", 'a"b\\c\nd'),): 1})
    assert list(labelled.text())[-1] == 'info{sha256="a\\"b\\\\c\\nd"} 1'


def test_names_are_taken_once() -> None:
    registry = Registry(Counter("a", "A."))
    registry.add(Counter("b", "B."))
    with pytest.raises(UsageError, match="a metric b already"):
        registry.add(Counter("b", "B."))
    assert registry.text().count("# TYPE") == 2 and registry.text().endswith("\n")


def test_nothing_is_lost_when_threads_count() -> None:
    counter, histogram = Counter("a", "A."), Histogram("b", "B.")

    def count() -> None:
        for _ in range(500):
            counter.add()
            histogram.add(0.2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value() == histogram.count == 2000
