"""Graphs of a few nodes, written by hand, are read as they were meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guide_fast.errors import IntegrityError
from guide_fast.models.openvino_ir import IrGraph, read_ir

XML = """<?xml version="1.0"?>
<net name="tiny" version="10">
  <layers>
    <layer id="0" name="x" type="Parameter"><output><port id="0"/></output></layer>
    <layer id="1" name="weight" type="Const">
      <data element_type="{dtype}" offset="{offset}" shape="2,3" size="{size}"/><output><port id="0"/></output>
    </layer>
    <layer id="2" name="scale" type="Const">
      <data element_type="i64" offset="0" shape="" size="8"/><output><port id="0"/></output>
    </layer>
    <layer id="3" name="product" type="MatMul"><input><port id="0"/><port id="1"/></input></layer>
    <layer id="4" name="sum" type="Add"><input><port id="0"/><port id="1"/></input></layer>
    <layer id="5" name="loose" type="Add"><input><port id="0"/><port id="1"/></input></layer>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="3" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="3" to-port="0"/>
    <edge from-layer="3" from-port="2" to-layer="4" to-port="0"/>
    <edge from-layer="2" from-port="0" to-layer="4" to-port="1"/>
    <edge from-layer="3" from-port="2" to-layer="5" to-port="0"/>
    <edge from-layer="0" from-port="0" to-layer="5" to-port="1"/>
  </edges>
</net>
"""
WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3) / 7


def graph(folder: Path, *, dtype: str = "f32", offset: int = 8, weight: np.ndarray = WEIGHT) -> IrGraph:
    (folder / "net.xml").write_text(XML.format(dtype=dtype, offset=offset, size=weight.nbytes), encoding="utf-8")
    (folder / "net.bin").write_bytes(np.int64(-5).tobytes() + weight.tobytes())
    return read_ir(folder / "net.xml", folder / "net.bin")


@pytest.mark.parametrize(("dtype", "numpy"), [("f32", "<f4"), ("f16", "<f2"), ("i32", "<i4"), ("u8", "u1")])
def test_constants_have_the_values_of_the_file(tmp_path: Path, dtype: str, numpy: str) -> None:
    weight = (WEIGHT * 14).astype(numpy)
    read = graph(tmp_path, dtype=dtype, weight=weight).constant_named("weight")
    assert read.dtype == np.dtype(numpy)
    assert np.array_equal(read, weight)


def test_constant_without_shape_is_a_scalar(tmp_path: Path) -> None:
    scalar = graph(tmp_path).constant_named("scale")
    assert scalar.shape == ()
    assert scalar.item() == -5


def test_inputs_follow_ports_not_the_order_of_edges(tmp_path: Path) -> None:
    (product,) = graph(tmp_path).by_type("MatMul")
    assert product.name == "product"
    assert product.inputs == ("0", "1")


def test_nodes_are_found_by_type_and_by_what_feeds_them(tmp_path: Path) -> None:
    read = graph(tmp_path)
    assert [node.name for node in read.by_type("Add", "MatMul")] == ["product", "sum", "loose"]
    assert [node.name for node in read.consumers("3")] == ["sum", "loose"]
    assert read.consumers("5") == []


def test_constant_input_is_the_one_constant(tmp_path: Path) -> None:
    read = graph(tmp_path)
    assert np.array_equal(read.constant_input(read.nodes["3"]), WEIGHT)
    with pytest.raises(IntegrityError, match="'loose' has 0 constant inputs"):
        read.constant_input(read.nodes["5"])


@pytest.mark.parametrize("offset", [9, 10_000, -1])
def test_constant_outside_the_file_is_an_integrity_error(tmp_path: Path, offset: int) -> None:
    with pytest.raises(IntegrityError, match=f"'weight' ends at byte {offset + 24}, the weights file has 32"):
        graph(tmp_path, offset=offset)


def test_unknown_dtype_is_an_integrity_error(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="element type 'bf16', known are f32"):
        graph(tmp_path, dtype="bf16")


def test_missing_constant_is_an_integrity_error(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no constant called 'product'"):
        graph(tmp_path).constant_named("product")
