"""What a request to render may say. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guide_fast.errors import UsageError
from guide_fast.serve.seeds import z_of

FORMATS = ("png", "raw")
LATENTS = ("seed", "z", "w")
KEYS = (*LATENTS, "c", "truncation", "format", "timeout")
LONGEST_TIMEOUT = 600.0


@dataclass(frozen=True)
class RenderRequest:
    """One image, asked for."""

    latent: Mapping[str, Any]  # "z" or "w", as `Batcher.submit` takes them
    format: str
    timeout: float  # seconds

    @classmethod
    def parse(cls, body: bytes, *, z_dim: int, timeout: float) -> RenderRequest:
        """From JSON; `timeout` where the request has none. Raises UsageError naming what is wrong."""
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UsageError(f'the body is no JSON ({error}); send an object such as {{"seed": 7}}') from None
        if not isinstance(said, dict):
            raise UsageError(f'the body is a {type(said).__name__}; send an object such as {{"seed": 7}}')
        if unknown := sorted(said.keys() - set(KEYS)):
            raise UsageError(f"{unknown[0]!r} is not known; a request has {', '.join(KEYS)}")
        given = [key for key in LATENTS if said.get(key) is not None]
        if len(given) != 1:
            raise UsageError(f"{' and '.join(given) or 'none'} of seed, z, w given; give one of them")
        latent = {key: said[key] for key in ("z", "w", "c") if said.get(key) is not None}
        if given == ["seed"]:
            latent["z"] = z_of(said["seed"], z_dim)
        latent["truncation"] = _number(said, "truncation", 1.0)
        wanted = said.get("format", FORMATS[0])
        if wanted not in FORMATS:
            raise UsageError(f"format {wanted!r} is not known; choose {' or '.join(FORMATS)}")
        seconds = _number(said, "timeout", timeout)
        if not 0 < seconds <= LONGEST_TIMEOUT:
            raise UsageError(f"timeout {seconds:g} s is out of range; give more than 0, at most {LONGEST_TIMEOUT:g}")
        return cls(latent, wanted, seconds)


def _number(said: Mapping[str, Any], key: str, default: float) -> float:
    value = said.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{key} is {value!r}; give a number")
    return float(value)
