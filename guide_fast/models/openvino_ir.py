"""Reader for OpenVINO IR files (version 10, 11): nodes, edges, constants as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from guide_fast.errors import IntegrityError

_DTYPES = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "u8": "u1"}


@dataclass(frozen=True)
class IrNode:
    """One layer of an IR graph; `inputs` are the ids of the layers feeding it, in port order."""

    id: str
    type: str
    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class IrGraph:
    """Nodes in file order (a topological order) together with the arrays of its `Const` nodes."""

    nodes: dict[str, IrNode]
    constants: dict[str, np.ndarray]  # node id -> array

    def by_type(self, *types: str) -> list[IrNode]:
        """Nodes of the given types, in file order."""
        return [node for node in self.nodes.values() if node.type in types]

    def constant_named(self, name: str) -> np.ndarray:
        """The constant called `name`; raises IntegrityError where the file has none."""
        for node in self.nodes.values():
            if node.name == name and node.id in self.constants:
                return self.constants[node.id]
        raise IntegrityError(f"the OpenVINO graph has no constant called {name!r}; fetch the asset again")

    def constant_input(self, node: IrNode) -> np.ndarray:
        """The one constant among a node's inputs."""
        found = [self.constants[i] for i in node.inputs if i in self.constants]
        if len(found) != 1:
            raise IntegrityError(f"node {node.name!r} has {len(found)} constant inputs where one was expected")
        return found[0]

    def consumers(self, node_id: str) -> list[IrNode]:
        """Nodes that read the output of `node_id`."""
        return [node for node in self.nodes.values() if node_id in node.inputs]


def read_ir(
    xml_path: Path,
    bin_path: Path,
) -> IrGraph:
    """Parse an IR pair. Raises IntegrityError when a constant lies outside the weights file.

    Source: the IR v10 layout (layers/edges in XML; `offset`, `size`, `element_type`, `shape` of constants).
    """
    root = ElementTree.parse(xml_path).getroot()
    blob = bin_path.read_bytes()
    sources: dict[tuple[str, str], str] = {}
    for edge in root.find("edges") or ():
        sources[edge.get("to-layer", ""), edge.get("to-port", "")] = edge.get("from-layer", "")
    nodes: dict[str, IrNode] = {}
    constants: dict[str, np.ndarray] = {}
    for layer in root.find("layers") or ():
        node_id = layer.get("id", "")
        ports = [port.get("id", "") for port in layer.find("input") or ()]
        inputs = tuple(sources[node_id, port] for port in ports)
        nodes[node_id] = IrNode(node_id, layer.get("type", ""), layer.get("name", ""), inputs)
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            constants[node_id] = _read_constant(data, blob, layer.get("name", ""))
    return IrGraph(nodes, constants)


def _read_constant(data: ElementTree.Element, blob: bytes, name: str) -> np.ndarray:
    offset, size = int(data.get("offset", "0")), int(data.get("size", "0"))
    if offset < 0 or offset + size > len(blob):
        raise IntegrityError(f"constant {name!r} ends at byte {offset + size}, the weights file has {len(blob)}")
    element_type = data.get("element_type", "")
    if element_type not in _DTYPES:
        raise IntegrityError(f"constant {name!r} has element type {element_type!r}, known are {', '.join(_DTYPES)}")
    shape = tuple(int(part) for part in (data.get("shape") or "").split(",") if part.strip())
    return np.frombuffer(blob, _DTYPES[element_type], size // np.dtype(_DTYPES[element_type]).itemsize, offset).reshape(
        shape
    )
