"""A plan says what a run would do, refuses what a run would refuse, changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import PHOTO_CONFIG, contents, photo_of, stop
from stopping import generator as generator
from stopping import photo as photo
from stopping import stand_ins as stand_ins  # fixtures
from tiny import CONFIG, tiny_generator

from guide_fast import _generators, assets, pipeline
from guide_fast.artifacts import Latent
from guide_fast.config import Config
from guide_fast.errors import RefusedError, UsageError
from guide_fast.models import loading
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, STATE

pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture
def file(generator: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generator file; the tiny generator has no 256 px."""
    small = replace(Config(), ltu=replace(Config().ltu, resolution=16))
    monkeypatch.setattr(_generators, "Config", lambda: small)
    loading.save(generator, tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


def plan_of(file: Path, **arguments: Any) -> dict[str, Any]:
    source = {} if {"seed", "latent", "photo"} & arguments.keys() else {"seed": 7}
    return pipeline.plan_forget(str(file), **{"config": CONFIG} | source | arguments)


def test_plan_touches_no_disk_and_names_what_would_be_written(
    file: Path, generator: MobileStyleGAN, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    plan = pipeline.plan_forget(str(tmp_path / "g.safetensors"), seed=7, config=CONFIG, out=tmp_path / "run")
    assert set(tmp_path.rglob("*")) == before
    assert plan["source"] == "seed:7"
    assert plan["layers"] == list(generator.layers)
    assert plan["would_write"] == [str(tmp_path / "run" / name) for name in FILES]
    assert set(plan["assets"]["missing"]) == set(plan["assets"]["needed"])
    assert plan["assets"]["needed"] == ["dlib-resnet-v1", "efficientnet-lite0", "faceres", "mobileface"]
    default = pipeline.plan_forget(pipeline.DEFAULT_GENERATOR, seed=7, config=CONFIG)
    assert default["assets"]["needed"][0] == pipeline.DEFAULT_GENERATOR
    with pytest.raises(UsageError, match="takes"):
        plan_of(file, latent=Latent(torch.zeros(2, 2), "tiny", "x"))


def test_plan_names_what_would_be_removed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("delta.safetensors", STATE, "notes.txt"):
        (tmp_path / "run" / name).touch()
    would_remove = [str(tmp_path / "run" / name) for name in ("delta.safetensors", STATE)]
    assert plan_of(file, out=tmp_path / "run")["would_remove"] == would_remove
    assert plan_of(file, out=tmp_path / "new")["would_remove"] == plan_of(file)["would_remove"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": None}, "nobody given"),
        ({"seed": 1, "photo": Path("a.png")}, "photo and seed given"),
        ({"photo": Path("absent.png")}, "absent.png does not exist"),
        ({"config": replace(CONFIG, ltu=replace(CONFIG.ltu, resolution=17))}, "17 is no output of tiny"),
        ({"config": replace(CONFIG, ltu=replace(CONFIG.ltu, layers="conv9"))}, "no layer of tiny matches"),
        ({"config": replace(CONFIG, ltu=replace(CONFIG.ltu, layers="to_img.*"))}, "past the 16 px output"),
        ({"config": replace(CONFIG, ltu=replace(CONFIG.ltu, steps=-1))}, r"ltu\.steps = -1"),
        ({"latent": Latent(torch.zeros(2, 2), "tiny", "x")}, "takes"),
        ({"latent": "the mean face"}, "the mean face, which is nobody's"),
        ({"deltas": "for other weights"}, "can only be applied to"),
        ({"resume": True, "out": Path("absent")}, "holds no stopped run to resume"),
        ({"resume": True}, "no folder was named"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_plan_refuses_what_the_run_refuses(
    file: Path, generator: MobileStyleGAN, tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    if arguments.get("latent") == "the mean face":
        arguments = {"latent": Latent(generator.w_mean.expand(8, 16).clone(), "tiny", "tensor")}
    if "deltas" in arguments:
        pipeline.forget(tiny_generator(seed=1), seed=5, config=CONFIG).delta.save(tmp_path / "d.safetensors")
        arguments = {"deltas": [tmp_path / "d.safetensors"]}
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=said):
        plan_of(file, **arguments)
    with pytest.raises(UsageError, match=said):
        deltas = arguments.pop("deltas", ())
        base = pipeline.load_generator(file, deltas=deltas, low_resolution=False)
        pipeline.forget(
            base, **{"config": CONFIG, "seed": None if "photo" in arguments or "latent" in arguments else 7} | arguments
        )
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("stage", "done"), [("invert", 4), ("preservation bank", 2), ("unlearning", 2)])
def test_plan_of_going_on_refuses_another_request(
    file: Path, photo: Path, tmp_path: Path, stage: str, done: int
) -> None:
    base = pipeline.load_generator(file)
    stop(base, photo, tmp_path / "run", stage, done)
    before = contents(tmp_path / "run")
    same = {"photo": photo, "aligned": True, "config": PHOTO_CONFIG, "out": tmp_path / "run", "resume": True}
    assert plan_of(file, **same)["would_remove"] == []
    other = replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, seed=1))
    with pytest.raises(UsageError, match=r"another ltu\.seed \(0 then, 1 now\)"):
        plan_of(file, **same | {"config": other})
    with pytest.raises(UsageError, match="another photo"):
        plan_of(file, **same | {"photo": photo_of(base, 6, tmp_path / "other.png")})
    assert contents(tmp_path / "run") == before


def test_plan_of_going_on_leaves_an_empty_cache_empty(
    file: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(pipeline.load_generator(file), photo, tmp_path / "run", "unlearning", 2)
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "empty"))
    plan_of(file, photo=photo, aligned=True, config=PHOTO_CONFIG, out=tmp_path / "run", resume=True)
    assert not (tmp_path / "empty").exists()


def test_plan_of_going_on_refuses_a_poor_inversion(file: Path, photo: Path, tmp_path: Path) -> None:
    config = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, min_similarity=1.0))
    stop(pipeline.load_generator(file), photo, tmp_path / "run", "unlearning", 2, config=config, force=True)
    same = {"photo": photo, "aligned": True, "config": config, "out": tmp_path / "run", "resume": True}
    with pytest.raises(RefusedError, match="shows somebody else"):
        plan_of(file, **same)
    assert plan_of(file, **same, force=True)["resume"]


def test_demonstration_photo_need_not_be_fetched_yet(file: Path) -> None:
    photo = assets.verify("demo-photo").path
    assert not photo.exists()
    assert plan_of(file, photo=photo)["source"] == f"photo:{photo}"


def test_plan_says_which_brought_networks_the_evaluation_would_use(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["curricularface-ir101", "inception-v3-fid"]
    assert plan_of(file)["brought"] == {"used": [], "not_used": [], "absent": both}
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "brought").mkdir(parents=True)
    for name in (both[1], "arcface-ir50"):
        (tmp_path / "other" / "brought" / f"{name}.safetensors").touch()
    assert plan_of(file)["brought"] == {"used": both[1:], "not_used": ["arcface-ir50"], "absent": both[:1]}
