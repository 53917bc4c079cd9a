"""Engine folders: whole, for every architecture asked for, every tensor that a delta touches exchangeable in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from changed_generators import FAMILIES, chain
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture
from tiny import tiny_generator

from guide_fast._generators import DEFAULT_GENERATOR
from guide_fast.deltas import apply_delta
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export import folder
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.tensorrt_folder import export_tensorrt, refit_tensors
from guide_fast.export.tensorrt_plan import PlanSettings, marked
from guide_fast.export.to_onnx import export_onnx
from guide_fast.models.generator import Generator
from guide_fast.pipeline import load_generator

INPUTS = PlanSettings("inputs", max_batch=2)
NO_GPU = "no CUDA driver is installed"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedGenerator:
    return export_onnx(tiny_generator(), tmp_path_factory.mktemp("export") / "onnx")


def everything(generator: Generator) -> set[str]:
    """The parameters that an image depends on; EG3D's super-resolution has strengths of a noise that it never adds."""
    silent = "superresolution." if getattr(generator, "cameras", None) is not None else None
    return {
        name
        for name, _ in generator.named_parameters()
        if not (silent and name.startswith(silent) and name.endswith("noise_strength"))
    }


def edited(source: ExportedGenerator, out: Path, **changes: object) -> Path:
    """A sound folder whose manifest says something else."""
    out.mkdir()
    for file in source.folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    (out / folder.MANIFEST).write_text(folder.manifest_text({**source.manifest, **changes}))
    return out


@pytest.mark.parametrize(("family", "precision"), [("mobilestylegan", "fp32"), ("stylegan2", "fp16"), ("eg3d", "fp32")])
def test_all_that_a_delta_touches_is_exchangeable_on_every_architecture(
    tensorrt_rtx: Tensorrt, tmp_path: Path, family: str, precision: str
) -> None:
    generator = FAMILIES[family]()
    source = export_onnx(generator, tmp_path / "onnx", precision=precision)
    made = export_tensorrt(
        source.folder, tmp_path / "engines", tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[120, 86, 89]
    )
    assert made.manifest["runtime"] == "tensorrt_rtx"
    assert made.manifest["tensorrt"]["compute_capabilities"] == [86, 89, 120]
    assert made.weights_sha256 == source.weights_sha256 and made.manifest["refit"] == source.manifest["refit"]
    touched = refit_tensors(source)
    assert {entry["source"] for entry in source.manifest["refit"]} == everything(generator)
    assert len(made.parts) == 3 * len(source.parts)
    for entry in made.manifest["parts"]:
        assert {*entry["exchangeable"]} == {*touched.get(entry["name"], ())}
    for part in source.parts:  # and the network a refittable engine would be built from has each among its weights
        names = touched.get(part.name, ())
        assert marked(tensorrt_rtx, part.path.read_bytes(), part=part.name, names=names) == names


@pytest.mark.slow
def test_the_default_generator_is_built_at_its_full_size(
    tensorrt_rtx: Tensorrt, asset_or_skip: Callable[[str], object], tmp_path: Path
) -> None:
    asset_or_skip(DEFAULT_GENERATOR)
    source = export_onnx(load_generator(low_resolution=False), tmp_path / "onnx", precision="fp16")
    for kind in ("inputs", "fixed"):
        made = export_tensorrt(
            source.folder,
            tmp_path / kind,
            tensorrt=tensorrt_rtx,
            settings=PlanSettings(kind, max_batch=4),
            capabilities=[86, 89, 120],
        )
        sizes = {entry["file"]: (made.folder / entry["file"]).stat().st_size for entry in made.manifest["parts"]}
        assert len(sizes) == 6
        weights = source.folder / "synthesis.onnx"
        for file, size in sizes.items():  # the weights are in the plan, or they are not
            if file.startswith("synthesis"):
                assert (size > weights.stat().st_size) == (kind == "fixed")
    for part in source.parts:
        names = refit_tensors(source)[part.name]
        assert marked(tensorrt_rtx, part.path.read_bytes(), part=part.name, names=names) == names


def test_a_tensor_that_could_not_be_exchanged_fails_the_export(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    entry = {**exported.manifest["refit"][0], "part": "synthesis", "tensor": "conv9.weight"}
    source = edited(exported, tmp_path / "onnx", refit=[*exported.manifest["refit"], entry])
    with pytest.raises(GuideFastError, match=r"tensor 'conv9.weight' of part 'synthesis' is not among the"):
        export_tensorrt(source, tmp_path / "out", tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[89])
    assert not (tmp_path / "out").exists()


def test_a_node_that_tensorrt_refuses_is_named_and_leaves_nothing(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    model = onnx.load(str(exported.folder / "mapping.onnx"))
    node = model.graph.node[-1]
    node.domain, node.op_type, node.name = "own", "Fold", "fold_it"
    model.opset_import.add(domain="own", version=1)
    parts = [dict(part) for part in exported.manifest["parts"]]
    source = edited(exported, tmp_path / "onnx")
    onnx.save(model, str(source / "mapping.onnx"))
    parts[0]["sha256"] = folder.file_sha256(source / "mapping.onnx")
    (source / folder.MANIFEST).write_text(folder.manifest_text({**exported.manifest, "parts": parts}))
    with pytest.raises(GuideFastError, match=r"does not take ONNX node 'fold_it' \(Fold\) of part 'mapping'"):
        export_tensorrt(source, tmp_path / "out", tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[89])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx"]


def test_damaged_plans_are_found_when_the_folder_is_read(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    export_tensorrt(exported.folder, out, tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[86, 89])
    plan = out / "synthesis.sm89.plan"
    whole = plan.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        plan.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"synthesis.sm89.plan is damaged: its sha256 is .*; export the"):
            ExportedGenerator.load(out)
    plan.unlink()
    with pytest.raises(IntegrityError, match=r"synthesis.sm89.plan is damaged: it is not there"):
        ExportedGenerator.load(out)


def test_engines_are_no_source_of_engines(tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path) -> None:
    source = edited(exported, tmp_path / "engines", runtime="tensorrt_rtx")
    with pytest.raises(UsageError, match="was exported for tensorrt_rtx; give an export --to onnx"):
        export_tensorrt(source, tmp_path / "out", tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[89])


def test_an_export_is_replaced_by_force_alone(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    for capability, force in ((86, False), (89, True)):
        export_tensorrt(
            exported.folder, out, tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[capability], force=force
        )
    with pytest.raises(UsageError, match="holds an exported generator already; add --force"):
        export_tensorrt(exported.folder, out, tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[86])
    assert json.loads((out / folder.MANIFEST).read_text())["tensorrt"]["compute_capabilities"] == [89]


def test_a_refittable_engine_is_refused_where_no_gpu_is(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="builds a refittable engine only where a GPU is"):
        export_tensorrt(exported.folder, tmp_path / "out", tensorrt=tensorrt_rtx, capabilities=[89], gpu=NO_GPU)
    assert not (tmp_path / "out").exists()


def test_a_delta_leads_from_the_engines_to_the_bits_of_the_changed_generator(
    tensorrt_rtx: Tensorrt, exported: ExportedGenerator, tmp_path: Path
) -> None:
    generator = tiny_generator()
    (delta,) = chain(generator, tmp_path, count=1).deltas
    made = export_tensorrt(
        exported.folder, tmp_path / "engines", tensorrt=tensorrt_rtx, settings=INPUTS, capabilities=[89]
    )
    changed = made.changed_by(delta)
    other = export_onnx(apply_delta(generator, delta), tmp_path / "other")
    for part in other.parts:
        for tensor in onnx.load(str(part.path)).graph.initializer:
            if (part.name, tensor.name) in changed:
                value = changed.pop((part.name, tensor.name))
                assert value.tobytes() == onnx.numpy_helper.to_array(tensor).tobytes()
    assert not changed
