"""`guide-fast forget` on the tiny generator in a process of its own, which waits at a step to be stopped.

python stopped_process.py OUT MARKER STEP ARGUMENTS...: at step STEP it writes MARKER, then sleeps (STEP -1: never).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from stopping import NETWORKS, TwoTaps
from tiny import CONFIG, TinyIdentity, tiny_generator

from guide_fast import _networks, pipeline
from guide_fast.cli import main
from guide_fast.config import settings_toml
from guide_fast.ltu.step import Draws, Step

out, marker, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
draw = Step.draw


def waiting(step: Step, index: int) -> Draws:
    if index == at:
        marker.touch()
        time.sleep(120)
    return draw(step, index)


def load(name: Any, **arguments: Any) -> Any:
    return tiny_generator()


Step.draw = waiting  # type: ignore[method-assign]
pipeline.load_generator = load
_networks.load_identity = lambda name: TinyIdentity(name, seed=NETWORKS[name])
_networks.load_perceptual = TwoTaps
settings = out.parent / "settings.toml"
settings.write_text(settings_toml(CONFIG), encoding="utf-8")
sys.exit(main(["forget", "--seed", "7", "--out", str(out), "--config", str(settings), "--quiet", *sys.argv[4:]]))
