"""Bad input through the whole program: one sentence that names it, nothing half-written."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from guide_fast import assets
from guide_fast.artifacts import Delta, Latent

GENERATOR = "mobilestylegan-ffhq-1024"
SLOTS, WIDTH = 23, 512


@pytest.fixture(autouse=True)
def real_weights(asset_or_skip: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here runs on the real generator, in an empty folder."""
    for name in (GENERATOR, "mtcnn"):
        asset_or_skip(name)
    monkeypatch.chdir(tmp_path)


def assert_one_sentence(outcome: Any, *named: str, codes: tuple[int, ...] = (1, 2)) -> None:
    """The outcome is an error in one line that names `named`; no output was left behind."""
    assert outcome.code in codes, outcome
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("guide-fast: ")
    assert "Traceback" not in line
    assert "unexpected" not in line
    assert all(name in line for name in named), line
    assert not Path("out").exists() or not any(path.is_file() for path in Path("out").rglob("*"))


def text_file(path: Path) -> None:
    path.write_text("no image", encoding="utf-8")


def empty_file(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((600, 600), 80).convert("RGB").save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:5000])


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path, "PNG")


def far_too_wide(path: Path) -> None:
    Image.new("RGB", (20_000, 100)).save(path, "PNG")


def cmyk(path: Path) -> None:
    Image.new("CMYK", (400, 400)).save(path, "JPEG")


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (400, 400), (shade, 0, 0)) for shade in (0, 128, 255)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def folder(path: Path) -> None:
    path.mkdir()


def absent(path: Path) -> None:
    """Nothing is there."""


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (text_file, "image"),
        (empty_file, "image|empty"),
        (truncated, "truncated|incomplete|damaged"),
        (one_pixel, "1 ?x ?1"),
        (far_too_wide, "20[,_ ]?000"),
        (cmyk, "CMYK"),
        (animated, "animat|frames"),
        (folder, "folder|directory"),
        (absent, "exist|No such file|not found"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("command", ["forget", "invert"])
def test_bad_photo(run: Any, command: str, make: Callable[[Path], None], named: str) -> None:
    make(Path("photo.img"))
    outcome = run(command, "--photo", "photo.img", "--quiet")
    assert_one_sentence(outcome, "photo.img")
    assert re.search(named, outcome.stderr), outcome.stderr


def test_photo_without_read_permission(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one_pixel(Path("photo.img"))
    Path("photo.img").chmod(0)

    def deny(opener: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(file, int) and Path(file).name == "photo.img":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return opener(file, *arguments, **options)

        return opened

    # an administrator may read every file, so the refusal has to be played
    monkeypatch.setattr(builtins, "open", deny(builtins.open))
    monkeypatch.setattr(io, "open", deny(io.open))
    assert_one_sentence(run("forget", "--photo", "photo.img", "--quiet"), "photo.img", "ermission")


def test_latent_with_nan(run: Any) -> None:
    w = torch.zeros(SLOTS, WIDTH)
    w[3, 5] = float("nan")
    Latent(w, GENERATOR, "seed:1").save(Path("w.safetensors"))
    assert_one_sentence(run("forget", "--latent", "w.safetensors"), "w.safetensors", "nan", "[3, 5]")


def test_latent_of_another_shape(run: Any) -> None:
    Latent(torch.zeros(14, WIDTH), GENERATOR, "seed:1").save(Path("w.safetensors"))
    assert_one_sentence(run("forget", "--latent", "w.safetensors", "--quiet"), "14", "23")


def test_latent_of_another_generator(run: Any) -> None:
    Latent(torch.zeros(SLOTS, WIDTH), "somebody-else", "seed:1").save(Path("w.safetensors"))
    assert_one_sentence(run("forget", "--latent", "w.safetensors", "--quiet"), "somebody-else", GENERATOR)


def test_latent_that_is_no_latent(run: Any) -> None:
    text_file(Path("w.safetensors"))
    assert_one_sentence(run("forget", "--latent", "w.safetensors"), "w.safetensors", codes=(2, 5))


@pytest.mark.parametrize("steps", [-1, 0])
def test_steps_below_one(run: Any, steps: int) -> None:
    assert_one_sentence(run("forget", "--seed", 7, "--steps", steps), f"ltu.steps = {steps}")


def test_unknown_layer_name(run: Any) -> None:
    outcome = run("forget", "--seed", 7, "--layers", "blocks.99", "--quiet")
    assert_one_sentence(outcome, "blocks.99", "doctor --layers")


def test_unknown_generator(run: Any) -> None:
    assert_one_sentence(run("render", "--seed", 7, "--generator", "stylegan99"), "stylegan99", GENERATOR)


@pytest.fixture
def foreign_delta() -> Path:
    """A delta whose base is not the default generator."""
    path = Path("foreign.safetensors")
    Delta({"input": torch.ones(1, 512, 4, 4, dtype=torch.int32)}, "a" * 64, "b" * 64, GENERATOR).save(path)
    return path


@pytest.mark.parametrize("command", [("apply",), ("rollback", "--generator", GENERATOR)], ids=lambda c: c[0])
def test_delta_for_another_generator(run: Any, foreign_delta: Path, command: tuple[str, ...]) -> None:
    outcome = run(*command, foreign_delta, "--out", "out/g.safetensors", "--quiet")
    assert_one_sentence(outcome, "aaaaaaaaaaaa" if command[0] == "apply" else "bbbbbbbbbbbb")


def test_render_with_a_delta_for_another_generator(run: Any, foreign_delta: Path) -> None:
    assert_one_sentence(run("render", "--seed", 7, "--delta", foreign_delta, "--quiet"), "aaaaaaaaaaaa")


def test_damaged_delta(run: Any, foreign_delta: Path) -> None:
    foreign_delta.write_bytes(foreign_delta.read_bytes()[:-100])
    outcome = run("apply", foreign_delta, "--out", "out/g.safetensors", "--quiet")
    assert_one_sentence(outcome, "foreign.safetensors", codes=(5,))


def test_full_disk_at_save(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = run("render", "--seed", 7, "--out", "out", "--quiet")
    assert_one_sentence(outcome, "out/seed-7.png", "No space left", "--out", codes=(1,))


def test_tampered_asset(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = assets.verify(GENERATOR).path
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "cache"))
    copy = assets.verify(GENERATOR).path
    copy.parent.mkdir(parents=True)
    shutil.copy(served.with_suffix(".json"), copy.with_suffix(".json"))
    content = bytearray(served.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert_one_sentence(run("render", "--seed", 7, "--quiet"), copy.name, "assets fetch", "--force", codes=(5,))
