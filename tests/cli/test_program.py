"""The whole program on the tiny generator: a real Ctrl-C to a real process, a full disk."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stopping import generator as generator
from stopping import stand_ins as stand_ins  # fixtures

from guide_fast import pipeline
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, LATENT, SPENT, STATE

# `guide-fast` with stand-ins; it says "stage step" as it goes, then gives the test time to press Ctrl-C.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
from stopping import NETWORKS, TwoTaps
from tiny import TinyIdentity, tiny_generator
from guide_fast import _networks, pipeline
from guide_fast.cli import main
_networks.load_identity = lambda name: TinyIdentity(name, seed=NETWORKS[name])
_networks.load_perceptual = TwoTaps
pipeline.load_generator = lambda *arguments, **named: tiny_generator()
forget, wait_at = pipeline.forget, sys.argv.pop(1)
def told(generator, *, progress, **named):
    def tell(stage, done, total, values):
        if f"{stage} {done}" == wait_at:
            print("waiting", flush=True)
            time.sleep(60)
    return forget(generator, progress=tell, **named)
pipeline.forget = told
sys.exit(main())
"""
SETTINGS = "ltu.resolution=16 ltu.population=256 ltu.bank=4 ltu.radius=2 ltu.reached=-1 ltu.steps=4 target.d=4"
SETTINGS += " target.candidates=4 target.max_similarity=0.9 evaluate.neighbours=2 evaluate.bystanders=3"
SETTINGS += " evaluate.stranger_pairs=6 evaluate.fd_images=8"
FORGET = ["forget", "--seed", "5", "--out", "my run", *(f"--set={setting}" for setting in SETTINGS.split())]


def started(folder: Path, wait_at: str, *arguments: str) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {
        "PYTHONPATH": os.pathsep.join(paths),
        "GUIDE_FAST_HOME": str(folder / "home"),
        "GUIDE_FAST_OFFLINE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, wait_at, *arguments],
        cwd=folder,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ctrl_c_in_a_real_process_can_be_resumed_as_it_says(tmp_path: Path) -> None:
    process = started(tmp_path, "unlearning 2", *FORGET)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n", process.communicate()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    (line,) = stderr.splitlines()[-1:]
    assert line.startswith("guide-fast: stopped; continue with `guide-fast ") and line.endswith("--resume`")
    left = {file.name for file in (tmp_path / "my run").iterdir()}
    assert left == {LATENT, STATE, SPENT, "config.json", "environment.json"}  # nothing half-written
    advised = shlex.split(line.split("`")[1])[1:]
    process = started(tmp_path, "never", *advised)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode in (0, 3), stderr  # tiny evidence may fall short
    assert "It took 4 steps" in stdout
    assert {file.name for file in (tmp_path / "my run").iterdir()} == set(FILES)


@pytest.mark.usefixtures("stand_ins")
def test_full_disk_when_a_run_is_saved(
    run: Any, generator: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "load_generator", lambda *arguments, **named: generator)
    monkeypatch.setattr(os, "fsync", full)
    outcome = run(*FORGET, "--quiet")
    assert (outcome.code, outcome.stdout) == (1, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("guide-fast: cannot write my run/latent.safetensors: No space left")
    assert "choose another folder with --out" in line
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
