"""Exported generators of every family do what PyTorch does, and refitting them is exporting the changed generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export import to_onnx
from guide_fast.export.folder import MANIFEST, ExportedGenerator
from guide_fast.export.onnx_layers import initializers
from guide_fast.export.onnx_parts import examples, parts_of
from guide_fast.export.to_onnx import BOUNDS, export_onnx

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

Exported = Callable[..., tuple[Any, ExportedGenerator]]
NAMES = ("mobilestylegan", "stylegan2", "stylegan2-conditional", "eg3d")
FORMS = [(name, precision) for name in NAMES for precision in BOUNDS if (name, precision) != (NAMES[2], "fp16")]
TIGHT = {"fp32": 1e-5, "fp16": 3e-3}  # of range: tiny networks are far inside the bounds


def graphs(engine: ExportedGenerator) -> dict[str, Any]:
    return {part.name: onnx.load(part.path) for part in engine.parts}


def stored(model: Any) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "precision"), FORMS)
def test_runtime_agrees_with_pytorch(exported: Exported, name: str, precision: str, batch: int) -> None:
    from guide_fast.export.onnx_compare import compare

    generator, engine = exported(name, precision)
    expected = examples(generator, batch=batch, seed=5, noise="const")
    found = compare({part.name: part.path for part in engine.parts}, expected)
    assert found.keys() == engine.manifest["max_of_range"].keys()
    found.pop("depth", None)
    assert max(found.values()) <= TIGHT[precision], found


@pytest.mark.parametrize(("name", "precision"), FORMS)
def test_refitting_is_exporting_the_changed_generator(
    exported: Exported, changed: Any, delta_file: Callable[..., Path], name: str, precision: str
) -> None:
    generator, engine = exported(name, precision)
    other, delta = changed(generator, name)
    change = engine.changed_by(delta_file(generator, name))
    assert delta.tensors.keys() == dict(generator.named_parameters()).keys()
    without = delta.tensors.keys() - {entry["source"] for entry in engine.manifest["refit"]}
    # the published super-resolution draws no noise, so how strong it would be has no part in an image
    assert all(source.startswith("superresolution.") and source.endswith(".noise_strength") for source in without)
    initial = {part: stored(model) for part, model in graphs(engine).items()}
    for part in parts_of(other, half=precision == "fp16", noise="const"):
        for path, tensor, _ in initializers(part.module):
            refitted = change.get((part.name, tensor), initial[part.name][tensor])
            exact = part.module.get_buffer(path).numpy()
            assert (refitted.dtype, refitted.shape) == (exact.dtype, exact.shape), tensor
            assert refitted.tobytes() == exact.tobytes(), tensor


def test_refitted_file_is_the_file_of_the_changed_generator(
    exported: Exported, changed: Any, delta_file: Callable[..., Path], tmp_path: Path
) -> None:
    generator, engine = exported("mobilestylegan")
    other, delta = changed(generator, "mobilestylegan")
    change = engine.changed_by(delta_file(generator, "mobilestylegan"))
    anew = export_onnx(other, tmp_path / "anew")
    assert anew.lineage == (delta.sha256,)
    for part, model in graphs(anew).items():
        refitted = stored(graphs(engine)[part]) | {tensor: v for (owner, tensor), v in change.items() if owner == part}
        expected = stored(model)
        assert refitted.keys() == expected.keys()
        assert all(refitted[tensor].tobytes() == value.tobytes() for tensor, value in expected.items())


@pytest.mark.parametrize(("name", "precision"), FORMS)
def test_graphs_are_plain(exported: Exported, name: str, precision: str) -> None:
    _, engine = exported(name, precision)
    for part, model in graphs(engine).items():
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", engine.manifest["opset"])]
        constant = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:
            assert node.domain == ""
            assert not node.doc_string
            assert not node.metadata_props
            if node.op_type in ("Conv", "ConvTranspose"):
                assert node.input[1] in constant, f"{part}: a convolution with a weight that is computed"
                groups = next((a.i for a in node.attribute if a.name == "group"), 1)
                assert groups == 1 or name == "mobilestylegan"  # depthwise there by architecture
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_initializers_have_the_names_of_parameters(exported: Exported) -> None:
    _, engine = exported("stylegan2")
    found = stored(graphs(engine)["synthesis"])
    entries = {entry["tensor"]: entry for entry in engine.manifest["refit"] if entry["part"] == "synthesis"}
    assert entries.keys() <= found.keys()
    assert entries["synthesis_network.b8.conv0.weight"]["rule"] == "swapped"
    assert entries["synthesis_network.b8.conv0.weight.sum_of_squares"]["rule"] == "sum_of_squares"
    for tensor, entry in entries.items():
        assert tensor.startswith(entry["source"])
        assert list(found[tensor].shape) == entry["shape"]
        assert found[tensor].dtype.name == entry["dtype"]


def test_half_precision_is_that_of_feature_maps(exported: Exported) -> None:
    for name in ("mobilestylegan", "stylegan2", "eg3d"):
        _, engine = exported(name, "fp16")
        for part, model in graphs(engine).items():
            for tensor, value in stored(model).items():
                small = ".modulation." in tensor or tensor.endswith("sum_of_squares") or part in ("mapping", "renderer")
                if tensor.endswith(("weight", "pointwise", "depthwise", "sum_of_squares", "bias")):
                    assert value.dtype == (np.float32 if small else np.float16), tensor


def test_metadata_says_whose_weights_these_are(exported: Exported) -> None:
    generator, engine = exported("mobilestylegan")
    for model in graphs(engine).values():
        said = {entry.key: entry.value for entry in model.metadata_props}
        assert said["guide_fast.weights_sha256"] == engine.weights_sha256
        assert said["guide_fast.licence"] == "of the test"
        assert json.loads(said["guide_fast.lineage"]) == []
        assert said["guide_fast.generator"] == generator.name


def test_equal_exports_have_equal_bytes(exported: Exported, tmp_path: Path) -> None:
    generator, engine = exported("mobilestylegan")
    anew = export_onnx(generator, tmp_path / "anew", licence="of the test")
    for part, other in zip(engine.parts, anew.parts, strict=True):
        assert part.sha256 == other.sha256
    assert (anew.folder / MANIFEST).read_bytes() == (engine.folder / MANIFEST).read_bytes()


def test_noise_can_be_left_out(tmp_path: Path) -> None:
    from guide_fast.export.onnx_compare import compare

    generator = tiny_generator()
    engine = export_onnx(generator, tmp_path / "plain", noise="none")
    files = {part.name: part.path for part in engine.parts}
    assert compare(files, examples(generator, batch=2, seed=5, noise="none"))["image"] < 1e-5
    assert compare(files, examples(generator, batch=2, seed=5, noise="const"))["image"] > 1e-3
    assert not any("noise" in tensor for tensor in stored(onnx.load(files["synthesis"])))


def test_outputs_too_far_from_pytorch_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(to_onnx.BOUNDS, "fp32", 1e-12)
    with pytest.raises(GuideFastError, match=r"of its range from PyTorch.*nothing was written"):
        export_onnx(tiny_generator(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_too_far(tmp_path: Path) -> None:
    generator = tiny_generator()
    with torch.no_grad():
        generator.to_img.bias.fill_(float("nan"))
    with pytest.raises(GuideFastError, match="inf of its range"):
        export_onnx(generator, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(GuideFastError, match=rf'needs {missing}; run `pip install "guide-fast\[export\]"`'):
        export_onnx(tiny_generator(), tmp_path / "out")


def test_bad_requests_are_refused_before_any_work(tmp_path: Path) -> None:
    tiny: Any = object()  # nothing of it is touched
    with pytest.raises(UsageError, match="precision='int4'"):
        export_onnx(tiny, tmp_path / "out", precision="int4")
    with pytest.raises(UsageError, match="noise='random'"):
        export_onnx(tiny, tmp_path / "out", noise="random")
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match="other files"):
        export_onnx(tiny, tmp_path)


def test_published_form_exports(shared: Path, tmp_path: Path) -> None:
    from guide_fast.models import loading
    from guide_fast.models.checkpoint import read_checkpoint

    read = read_checkpoint(shared / "fixtures" / "stylegan2_cond_32_resnet.pkl")
    engine = export_onnx(loading.from_tensors(read.tensors, read.config), tmp_path / "out")
    assert max(engine.manifest["max_of_range"].values()) <= BOUNDS["fp32"]


@pytest.mark.parametrize("precision", BOUNDS)
def test_default_generator_exports(asset_or_skip: Callable[[str], Any], tmp_path: Path, precision: str) -> None:
    from guide_fast.models.mobile_stylegan import ASSET_NAME, MobileStyleGAN

    generator = MobileStyleGAN.from_tensors(*asset_or_skip(ASSET_NAME))
    engine = export_onnx(generator, tmp_path / "out", precision=precision)
    assert engine.manifest["max_of_range"]["synthesis"] <= BOUNDS[precision]
    parameters = dict(generator.named_parameters())
    assert {entry["source"] for entry in engine.manifest["refit"]} == parameters.keys()
