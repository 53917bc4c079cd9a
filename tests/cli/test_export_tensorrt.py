"""`guide-fast export --to tensorrt`: engines from a generator or an ONNX export, refusals before any work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture
from tiny import tiny_generator

import guide_fast
from guide_fast.export.cuda_driver import Gpu, found
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.to_onnx import export_onnx

BUILD = ("--to", "tensorrt", "--weights", "inputs", "--compute-capability", 120)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A generator file, its ONNX export."""
    where = tmp_path_factory.mktemp("sources")
    guide_fast.save_generator(tiny_generator(), where / "tiny.safetensors")
    export_onnx(tiny_generator(), where / "onnx")
    return where / "tiny.safetensors", where / "onnx"


@pytest.mark.parametrize("which", [0, 1])
def test_engines_come_from_a_generator_or_its_onnx_export(
    run: Callable[..., Any], tensorrt_rtx: Tensorrt, sources: tuple[Path, Path], tmp_path: Path, which: int
) -> None:
    done = run("export", sources[which], *BUILD, "--compute-capability", 86, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert done.json["runtime"] == "tensorrt_rtx"
    assert done.json["tensorrt"]["version"] == tensorrt_rtx.version
    assert [(file["name"], file["compute_capability"]) for file in done.json["files"]] == [
        ("mapping", 86),
        ("mapping", 120),
        ("synthesis", 86),
        ("synthesis", 120),
    ]
    assert all(Path(file["path"]).is_file() and file["exchangeable"] for file in done.json["files"])
    again = run("export", sources[which], *BUILD, "--out", tmp_path / "out")
    assert again.code == 2 and "add --force" in again.stderr


def test_a_dry_run_writes_nothing(
    run: Callable[..., Any], tensorrt_rtx: Tensorrt, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    for source in sources:
        done = run("export", source, *BUILD, "--out", tmp_path / "out", "--dry-run", "--json")
        assert done.code == 0, done.stderr
        assert done.json["compute_capabilities"] == [120] and done.json["weights"] == "inputs"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("which", "options", "message"),
    [
        (0, ("--weights", "loose"), "--weights loose is unknown; choose from refit, inputs, fixed"),
        (0, ("--compute-capability", 90), "builds no engine for compute capability 90"),
        (0, ("--max-batch", 0), "--max-batch is 0; give 1 or more"),
        (0, ("--strip",), "--strip leaves out what is refitted later"),
        (0, ("--timing-cache", "kept"), "measures nothing while it builds"),
        (0, ("--flavour", "trt"), "no flavour 'trt' of TensorRT"),
        (1, ("--precision", "fp16"), "is exported already"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Callable[..., Any],
    tensorrt_rtx: Tensorrt,
    sources: tuple[Path, Path],
    tmp_path: Path,
    which: int,
    options: tuple[object, ...],
    message: str,
) -> None:
    done = run("export", sources[which], *BUILD, *options, "--out", tmp_path / "out")
    assert done.code == 2 and message in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(isinstance(found(), Gpu), reason="with a GPU a refittable engine is built")
def test_without_a_gpu_the_default_says_what_can_be_built(
    run: Callable[..., Any], tensorrt_rtx: Tensorrt, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run("export", sources[1], "--to", "tensorrt", "--compute-capability", 89, "--out", tmp_path / "out")
    assert done.code == 2 and "or choose --weights inputs, which needs none" in done.stderr


def test_a_missing_package_is_named_with_its_command(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    done = run("export", sources[1], *BUILD, "--out", tmp_path / "out")
    assert done.code == 2 and "is not installed; install it: pip install tensorrt-rtx-cu13==" in done.stderr
