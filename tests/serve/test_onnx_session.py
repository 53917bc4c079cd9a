"""A session on an exported folder: without torch, exact exchanges, refusals that leave the old weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_generators import FAMILIES, Chain, chain, damaged_deltas
from hammering import expected, hammer, latents
from tiny_stylegan2 import tiny_stylegan2

from guide_fast.deltas import apply_delta
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export.to_onnx import export_onnx
from guide_fast.serve.onnx_session import OnnxSession
from guide_fast.serve.opening import open_session
from guide_fast.serve.session import Session
from guide_fast.serve.torch_session import TorchSession

pytest.importorskip("onnxruntime")
EXPORTED = ("mobilestylegan", "stylegan2")
RANGE = 2.0  # of images in [-1, 1]


@dataclass(frozen=True)
class Exports:
    """A generator with two deltas applied, exported before and after."""

    chain: Chain
    folders: tuple[Path, Path]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exports]:
    """By family, each made once."""

    @cache
    def make(name: str) -> Exports:
        folder, generator = tmp_path_factory.mktemp(name), FAMILIES[name]()
        made = chain(generator, folder)
        folders = (folder / "before", folder / "after")
        export_onnx(generator, folders[0])
        for delta in made.deltas:
            apply_delta(generator, delta)
        export_onnx(generator, folders[1])
        return Exports(made, folders)

    return make


@pytest.fixture(params=EXPORTED)
def family(request: pytest.FixtureRequest, exports: Callable[[str], Exports]) -> Exports:
    """Every family in turn."""
    return exports(request.param)


@pytest.fixture
def mobile(exports: Callable[[str], Exports]) -> Exports:
    return exports("mobilestylegan")


@pytest.fixture
def damaged(mobile: Exports, tmp_path: Path) -> dict[str, Path]:
    return damaged_deltas(mobile.chain, tmp_path)


def test_images_are_those_of_torch_within_its_rounding(family: Exports) -> None:
    session, other = OnnxSession(family.folders[1], threads=1), TorchSession(family.chain.generator)
    assert isinstance(session, Session) and session.shape == other.shape and session.version == other.version
    z = latents(2, session.shape.z_dim)
    for given in ({"z": z}, {"z": z, "truncation": [0.0, 0.7]}):
        found, wanted = session.render(**given), other.render(**given)
        assert found.images.dtype == np.float32 and found.images.shape == wanted.images.shape
        assert np.abs(found.images - wanted.images).max() <= 1e-4 * RANGE
    w = np.random.default_rng(0).standard_normal((1, session.shape.num_ws, session.shape.w_dim), dtype=np.float32)
    assert np.abs(session.render(w=w).images - other.render(w=w).images).max() <= 1e-4 * RANGE
    if family.chain.generator.cameras is not None:
        c = family.chain.generator.cameras.evaluation[:2].numpy()
        views, wanted = session.render(z=z, c=c).images, other.render(z=z, c=c).images
        assert np.abs(views - wanted).max() <= 1e-4 * RANGE and not np.array_equal(views, session.render(z=z).images)


def test_swap_gives_the_bits_of_exporting_the_changed_generator(family: Exports) -> None:
    session = OnnxSession(family.folders[0], threads=1)
    z = latents(2, session.shape.z_dim)
    before, after = (OnnxSession(folder, threads=1).render(z=z) for folder in family.folders)
    assert not np.array_equal(before.images, after.images)
    for delta in family.chain.deltas:
        between = session.version
        session.apply(delta)
    made = session.render(z=z)
    assert made.version == after.version and np.array_equal(made.images, after.images)
    assert session.rollback().after == between and between.weights_sha256 == family.chain.hashes[1]
    session.rollback()
    made = session.render(z=z)
    assert made.version == before.version and np.array_equal(made.images, before.images)


def test_threads_never_see_two_versions_in_one_image(family: Exports) -> None:
    session = OnnxSession(family.folders[0], threads=1)
    z = latents(3, session.shape.z_dim)
    deltas = family.chain.deltas
    images = expected(session, deltas, z)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    found = hammer(session, render, deltas, images, z, threads=3, seconds=0.8, least_swaps=4)
    assert found.wrong == [] and len(found.seen) == 3, found


def test_image_does_not_depend_on_who_else_asked(mobile: Exports) -> None:
    session = OnnxSession(mobile.folders[0], threads=1)
    z = latents(3, 16)
    together = session.render(z=z).images
    assert all(np.array_equal(together[i], session.render(z=z[i : i + 1]).images[0]) for i in range(3))


def test_only_parts_that_a_delta_touches_are_built_anew(mobile: Exports) -> None:
    session = OnnxSession(mobile.folders[0], threads=1)
    before = dict(session._current().sessions)
    session.apply(mobile.chain.deltas[0])
    after = session._current().sessions
    assert after["mapping"] is before["mapping"] and after["synthesis"] is not before["synthesis"]


PROGRAM = """
import json, sys
import numpy as np
sys.modules["torch"] = None
from guide_fast.serve import Batcher, Server, Serving, open_session
session = open_session(sys.argv[1], threads=1)
z = np.load(sys.argv[3])
before = session.render(z=z)
session.apply(sys.argv[2])
batcher = Batcher(session)
after = [batcher.submit(z=one).result() for one in z]
batcher.close()
session.rollback()
server = Server(Serving(session))
server.stop()
np.savez(sys.argv[4], before=before.images, after=np.stack([answer.image for answer in after]))
from guide_fast.cli import main
sys.stdout, out = sys.stderr, sys.stdout
assert main(["serve", sys.argv[1], "--port", "0", "--dry-run"]) == 0
sys.stdout = out
assert not any(name == "torch" or name.startswith("torch.") for name, module in sys.modules.items() if module)
print(json.dumps([before.version.weights_sha256, after[0].version.weights_sha256]))
"""


def test_it_renders_and_exchanges_weights_where_torch_cannot_be_imported(mobile: Exports, tmp_path: Path) -> None:
    z = latents(2, 16)
    np.save(tmp_path / "z.npy", z)
    arguments = [mobile.folders[0], mobile.chain.deltas[0], tmp_path / "z.npy", tmp_path / "images.npz"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == mobile.chain.hashes[:2]
    with np.load(tmp_path / "images.npz") as images:
        session = OnnxSession(mobile.folders[0], threads=1)
        assert np.array_equal(images["before"], session.render(z=z).images)
        session.apply(mobile.chain.deltas[0])
        assert np.array_equal(images["after"], session.render(z=z).images)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("flipped bit", IntegrityError, "does not lead to the promised weights"),
        ("unknown weight", IntegrityError, "does not have in that form"),
        ("missing weight", IntegrityError, "does not lead to the promised weights"),
        ("other shape", IntegrityError, "does not have in that form"),
        ("truncated file", IntegrityError, "is damaged or no safetensors file"),
        ("no file", UsageError, "does not exist"),
        ("other base", UsageError, "can only be applied to weights with sha256"),
    ],
)
def test_bad_delta_is_refused_and_the_old_weights_render_on(
    what: str, error: type[GuideFastError], message: str, mobile: Exports, damaged: dict[str, Path]
) -> None:
    session = OnnxSession(mobile.folders[0], threads=1)
    z = latents(1, 16)
    before = session.render(z=z)
    with pytest.raises(error, match=message):
        session.apply(damaged[what])
    after = session.render(z=z)
    assert after.version == before.version and np.array_equal(after.images, before.images)
    assert session.apply(mobile.chain.deltas[0]).after.weights_sha256 == mobile.chain.hashes[1]


def broken(folder: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def remade(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest changed by somebody who knows how its hash is made."""
    from guide_fast.export.folder import manifest_text, read_manifest

    manifest = read_manifest(folder)
    change(manifest)
    (folder / "engine.json").write_text(manifest_text(manifest), encoding="utf-8")


def test_damaged_folder_is_refused(mobile: Exports, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no exported generator"):
        OnnxSession(tmp_path)
    copy = broken(mobile.folders[0], tmp_path)
    part = copy / "synthesis.onnx"
    whole = part.read_bytes()
    part.write_bytes(whole[:-7])
    with pytest.raises(IntegrityError, match=r"synthesis\.onnx is damaged"):
        OnnxSession(copy)
    part.unlink()
    with pytest.raises(IntegrityError, match=r"synthesis\.onnx is damaged: it is not there"):
        OnnxSession(copy)
    part.write_bytes(whole)
    (copy / "weights.safetensors").write_bytes(b"")
    with pytest.raises(IntegrityError, match="weights"):
        OnnxSession(copy)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.update(runtime="tensorrt_rtx"), UsageError, "was exported for tensorrt_rtx"),
        (lambda m: m.update(format=99), UsageError, "format 99"),
        (lambda m: m["refit"][0].update(tensor="nobody"), IntegrityError, "has no initializer 'nobody'"),
        (lambda m: m["parts"][0]["inputs"][0].update(name="x"), IntegrityError, "without the ports z, ws, image"),
    ],
)
def test_engine_of_another_kind_is_refused(
    change: Callable[[dict[str, Any]], None],
    error: type[GuideFastError],
    message: str,
    mobile: Exports,
    tmp_path: Path,
) -> None:
    copy = broken(mobile.folders[0], tmp_path)
    remade(copy, change)
    with pytest.raises(error, match=message):
        OnnxSession(copy)


def test_label_of_a_conditional_generator_comes_with_each_request(tmp_path: Path) -> None:
    generator = tiny_stylegan2(c_dim=3)
    export_onnx(generator, tmp_path / "exported")
    session, other = OnnxSession(tmp_path / "exported", threads=1), TorchSession(generator)
    assert session.shape == other.shape and session.shape.c_needed
    z, c = latents(2, 12), np.eye(3, dtype=np.float32)[1:]
    assert np.abs(session.render(z=z, c=c).images - other.render(z=z, c=c).images).max() <= 1e-4 * RANGE
    with pytest.raises(UsageError, match="needs a label"):
        session.render(z=z)
    assert session.warm_up() > 0


def test_folder_opens_as_what_it_is(mobile: Exports) -> None:
    session = open_session(mobile.folders[0], threads=1, deltas=mobile.chain.deltas)
    assert isinstance(session, OnnxSession) and session.version.weights_sha256 == mobile.chain.hashes[2]
    for options, message in (({"device": "cuda"}, "device = 'cuda' cannot run"), ({"label": 1}, "leave --label out")):
        with pytest.raises(UsageError, match=message):
            open_session(mobile.folders[0], **options)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_package_that_is_not_installed_is_named(package: str, mobile: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GuideFastError, match=rf"{package} is not installed; `pip install"):
        OnnxSession(mobile.folders[0])
