"""A session on an exported folder in ONNX Runtime. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export.folder import ExportedGenerator, Part, StoredDelta
from guide_fast.serve.session import Array, Inputs, Shape, Version
from guide_fast.serve.swapping import ReferenceSession

if TYPE_CHECKING:
    import onnxruntime

RUNTIME = "onnx"
MAPPING, EG3D = "mapping", "eg3d"
MEANS = ("w_mean", "mapping_network.w_avg", "backbone.mapping.w_avg")  # by family
_PLACE = "weights"  # where a skeleton says its initializers are; nothing is ever read there


@dataclass(frozen=True)
class Skeleton:
    """A graph whose refittable initializers are not in it: each session is given its own."""

    part: Part
    model: bytes
    tensors: tuple[str, ...]  # names of those initializers


@dataclass(frozen=True)
class OnnxWeights:
    """One version: the generator's weights, the initializers that follow from them, a session a part."""

    exported: ExportedGenerator
    initializers: Mapping[tuple[str, str], Array]  # (part, tensor) -> value
    sessions: Mapping[str, onnxruntime.InferenceSession]  # by part
    held: Mapping[str, list[Any]] = field(default_factory=dict)  # OrtValues that the sessions read

    @property
    def version(self) -> Version:
        """Of the generator's weights."""
        return Version(self.exported.weights_sha256, self.exported.lineage)


class OnnxSession(ReferenceSession[OnnxWeights, StoredDelta]):
    """Renders an exported generator, image by image.

    Refittable weights are plain arrays that an `InferenceSession` is given beside its graph, before it optimises
    anything (`SessionOptions.add_external_initializers`; `add_initializer` comes after constant folding and would leave
    stale copies). The next version is a new session of every part that a delta touches, built aside.
    """

    runtime = RUNTIME

    def __init__(self, folder: Path | str, *, threads: int | None = None) -> None:
        """`threads` of one image.

        Raises UsageError for what is no exported ONNX generator, IntegrityError for a damaged one, GuideFastError where
        ONNX Runtime is not installed.
        """
        _runtime()
        exported = ExportedGenerator.load(folder)
        found = exported.manifest.get("runtime")
        if found != RUNTIME:
            raise UsageError(f"{folder} was exported for {found}, which this session does not run; export it --to onnx")
        self._threads = threads
        self._skeletons: dict[str, Skeleton] = {}
        initializers: dict[tuple[str, str], Array] = {}
        refit: dict[str, list[str]] = {}
        for entry in exported.manifest["refit"]:
            refit.setdefault(entry["part"], []).append(entry["tensor"])
        for part in exported.parts:
            skeleton, values = _skeleton(part, sorted({*refit.get(part.name, [])}))
            self._skeletons[part.name] = skeleton
            initializers |= {(part.name, name): value for name, value in values.items()}
        weights = self._built(exported, initializers, {}, {}, set(self._skeletons))
        super().__init__(shape_of(exported), weights)

    def _read(self, delta: Path) -> StoredDelta:
        return StoredDelta.load(delta)

    def _changed(self, weights: OnnxWeights, change: StoredDelta, *, undo: bool) -> OnnxWeights:
        exported, changed = weights.exported.after(change, undo=undo)
        initializers = {**weights.initializers}
        for key, value in changed.items():
            if key not in initializers:
                raise IntegrityError(f"the exported part {key[0]!r} has no initializer {key[1]!r}; export it anew")
            initializers[key] = value
        return self._built(exported, initializers, weights.sessions, weights.held, {part for part, _ in changed})

    def _built(
        self,
        exported: ExportedGenerator,
        initializers: Mapping[tuple[str, str], Array],
        sessions: Mapping[str, onnxruntime.InferenceSession],
        held: Mapping[str, list[Any]],
        anew: set[str],
    ) -> OnnxWeights:
        """Sessions of the parts `anew`, the others as they are."""
        ort = _runtime()
        made, values = dict(sessions), dict(held)
        for name in anew:
            skeleton = self._skeletons[name]
            options = ort.SessionOptions()
            options.log_severity_level = 3
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            values[name] = [ort.OrtValue.ortvalue_from_numpy(initializers[name, tensor]) for tensor in skeleton.tensors]
            if skeleton.tensors:
                options.add_external_initializers(list(skeleton.tensors), values[name])
            try:
                made[name] = ort.InferenceSession(skeleton.model, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its exceptions have no common class of their own
                said = " ".join(str(error).split())
                raise GuideFastError(
                    f"ONNX Runtime {ort.__version__} cannot run {skeleton.part.path} ({said}); export it anew, or "
                    "install the version that it was exported for"
                ) from None
        return OnnxWeights(exported, initializers, made, values)

    def _images(self, weights: OnnxWeights, inputs: Inputs) -> Array:
        known: dict[str, Array] = {}
        camera = weights.exported.manifest["family"] == EG3D
        ws = inputs.w
        if ws is None:
            assert inputs.z is not None
            ws = self._mapped(weights, inputs.z, None if camera else inputs.c)
        mean = w_mean(weights.exported)
        amount = inputs.truncation[:, None, None]
        known["ws"] = np.where(amount == 1, ws, mean + amount * (ws - mean))
        if camera:
            known["c"] = _label(weights.exported.manifest["cameras"]["frontal"], inputs.c, len(inputs))
        for part in weights.exported.parts:
            if part.name != MAPPING:
                known |= self._run(weights, part, known)
        return known["image"].astype(np.float32, copy=False)

    def _mapped(self, weights: OnnxWeights, z: Array, c: Array | None) -> Array:
        part = next(part for part in weights.exported.parts if part.name == MAPPING)
        # truncated, like a w that was given, after the mapping: its own way leaves last bits behind where psi is 1
        known = {"z": z, "psi": np.ones(len(z), np.float32)}
        if any(port.name == "c" for port in part.inputs):
            manifest = weights.exported.manifest
            usual = manifest["cameras"]["conditioning"] if manifest["family"] == EG3D else manifest.get("label")
            known["c"] = _label(usual, c, len(z))
        return self._run(weights, part, known)["ws"]

    def _run(self, weights: OnnxWeights, part: Part, known: Mapping[str, Array]) -> dict[str, Array]:
        """What a part makes of the values called as its inputs are."""
        names = [port.name for port in part.outputs]
        given = {port.name: known[port.name].astype(port.dtype, copy=False) for port in part.inputs}
        return dict(zip(names, weights.sessions[part.name].run(names, given), strict=True))


def shape_of(exported: ExportedGenerator) -> Shape:
    """What an exported generator takes, what it makes; raises IntegrityError where its ports do not say."""
    ports = {port.name: port for part in exported.parts for port in (*part.inputs, *part.outputs)}
    inputs = {port.name for part in exported.parts if part.name == MAPPING for port in part.inputs}
    try:
        (_, z_dim), (_, num_ws, w_dim) = ports["z"].shape, ports["ws"].shape
        resolution = ports["image"].shape[-1]
        c_dim = ports["c"].shape[1] if "c" in ports else 0
        sizes = {"z_dim": z_dim, "num_ws": num_ws, "w_dim": w_dim, "c_dim": c_dim, "resolution": resolution}
        numbers = {name: int(size) for name, size in sizes.items()}
    except (KeyError, ValueError, IndexError) as error:
        raise IntegrityError(
            f"{exported.folder} has parts without the ports z, ws, image ({error}); export it anew"
        ) from None
    needed = "c" in inputs and exported.manifest["family"] != EG3D and not exported.manifest.get("label")
    return Shape(exported.manifest["generator"], **numbers, c_needed=needed)


def _label(usual: list[float] | None, c: Array | None, count: int) -> Array:
    """[N, C]: what was given, else what the generator usually takes."""
    return c if c is not None else np.tile(np.asarray(usual, np.float32), (count, 1))


def w_mean(exported: ExportedGenerator) -> Array:
    """The mean style vector [D]; raises IntegrityError where the weights lack it."""
    for name in MEANS:
        if name in exported.tensors:
            return exported.tensors[name]
    raise IntegrityError(f"{exported.folder} lacks the mean style vector ({', '.join(MEANS)}); export it anew")


def _skeleton(part: Part, names: list[str]) -> tuple[Skeleton, dict[str, Array]]:
    """The graph with `names` taken out of it, their values; raises IntegrityError where it lacks one of them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model(part.path, load_external_data=True)
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {}
    for name in names:
        if name not in found:
            raise IntegrityError(f"{part.path} has no initializer {name!r}, which deltas change; export it anew")
        tensor = found[name]
        values[name] = np.asarray(numpy_helper.to_array(tensor), order="C")  # a scalar stays one
        for content in ("raw_data", "float_data", "int32_data", "double_data"):
            tensor.ClearField(content)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, said in (("location", _PLACE), ("offset", "0"), ("length", str(values[name].nbytes))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, said
    return Skeleton(part, model.SerializeToString(), tuple(names)), values


def _runtime() -> Any:
    """ONNX Runtime; raises GuideFastError where it, or onnx, is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise GuideFastError(f'{error.name} is not installed; `pip install "guide-fast[export]"` brings it') from None
    return onnxruntime
