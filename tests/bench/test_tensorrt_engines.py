"""The benchmark of engines counts what a delta touches, part by part."""

from __future__ import annotations

import pytest
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture
from tiny import tiny_generator

from guide_fast.bench.tensorrt_engines import GENERATORS, measure
from guide_fast.export.tensorrt_flavour import Tensorrt


def test_a_part_has_a_row_with_what_was_built(tensorrt_rtx: Tensorrt, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measure(tensorrt_rtx, "tiny", tiny_generator(), "fp32", capabilities=[86, 120])
    assert [row["part"] for row in rows] == ["mapping", "synthesis"]
    for row in rows:
        assert row["touched"] == row["refittable"] == row["inputs"]["exchangeable"] > 0
        assert row["fixed"]["exchangeable"] == 0
        for kind in ("inputs", "fixed"):
            assert {*row[kind]["build_seconds"]} == {*row[kind]["plan_bytes"]} == {"86", "120"}
            assert min(row[kind]["build_seconds"].values()) > 0
            assert min(row[kind]["plan_bytes"].values()) > 1000
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_published_sizes_are_what_they_are_called() -> None:
    assert GENERATORS["stylegan2-256"]().img_resolution == 256
    assert GENERATORS["eg3d-512"]().img_resolution == 512
