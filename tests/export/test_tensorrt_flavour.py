"""The two flavours differ in one table; what one cannot do is said with the way out."""

from __future__ import annotations

import sys

import pytest
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import UsageError
from guide_fast.export.tensorrt_flavour import FLAVOURS, Messages, Tensorrt, load


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_missing_package_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"^TensorRT.* is not installed; install it: pip install tensorrt") as error:
        load(name)
    assert FLAVOURS[name].install in str(error.value)


def test_a_package_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(UsageError, match=r"TensorRT does not load \(libnvinfer.so.11 is not there\); install it"):
        load("tensorrt")


def test_an_unknown_flavour_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no flavour 'trt' of TensorRT; choose tensorrt_rtx or tensorrt"):
        load("trt")


def test_capabilities_come_in_order_once(tensorrt_rtx: Tensorrt) -> None:
    assert tensorrt_rtx.checked([120, 86, 89, 86]) == (86, 89, 120)


def test_a_capability_nobody_builds_for_is_refused(tensorrt_rtx: Tensorrt) -> None:
    with pytest.raises(UsageError, match="builds no engine for compute capability 90; choose from 75, 80"):
        tensorrt_rtx.checked([86, 90])
    plain = Tensorrt(FLAVOURS["tensorrt"], tensorrt_rtx.module)
    with pytest.raises(UsageError, match="compute capability 86; leave --compute-capability out"):
        plain.checked([86])


def test_the_reason_is_the_first_error_of_ours() -> None:
    said = ["[checkMacros.cpp::catchCudaError::250] no GPU", "the_node: shapes\n do not fit.", "so nothing works"]
    assert Messages(said).reason() == "the_node: shapes do not fit"
    assert Messages(said[:1]).reason() == said[0]
    assert Messages().reason() == "it gave no reason"


def test_the_logger_keeps_errors_alone(tensorrt_rtx: Tensorrt) -> None:
    messages = Messages()
    logger, severity = tensorrt_rtx.logger(messages), tensorrt_rtx.module.ILogger
    for level in (severity.VERBOSE, severity.WARNING, severity.ERROR, severity.INTERNAL_ERROR):
        logger.log(level, str(level))
    assert [error.split(".")[-1] for error in messages.errors] == ["ERROR", "INTERNAL_ERROR"]
