"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from guide_fast.config import LARGEST_INT, Config, resolve_config
from guide_fast.errors import UsageError

DEFAULT_GENERATOR = "mobilestylegan-ffhq-1024"

PERSON, PHOTO, SETTINGS = "The person", "The photo", "Settings"  # panels of the help

Photo = Annotated[Path | None, typer.Option(help="A photo of the person.", show_default=False, rich_help_panel=PERSON)]
PersonSeed = Annotated[
    int | None,
    typer.Option(
        help="The person that the generator makes from this seed.",
        metavar="INT",
        show_default=False,
        rich_help_panel=PERSON,
    ),
]
PersonSeeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="The person of this seed; repeatable.", metavar="INT", show_default=False),
]
LatentFile = Annotated[
    Path | None,
    typer.Option(
        "--latent", help="A latent file written by `invert` or `forget`.", show_default=False, rich_help_panel=PERSON
    ),
]
Face = Annotated[
    int | None,
    typer.Option(
        help="Which face, when the photo shows several (counted from 1, the largest first).",
        min=1,
        show_default=False,
        rich_help_panel=PHOTO,
    ),
]
Aligned = Annotated[
    bool, typer.Option("--aligned", help="The photo is already in FFHQ framing.", rich_help_panel=PHOTO)
]
Force = Annotated[bool, typer.Option("--force", help="Go on although the inversion is poor.", rich_help_panel=PHOTO)]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Find the person in seconds from an encoder, without refinement.",
        rich_help_panel=PHOTO,
    ),
]
GeneratorName = Annotated[
    str,
    typer.Option(
        "--generator",
        help="A known generator, or a generator file written by `convert` or `apply`.",
        metavar="NAME|FILE",
    ),
]
Label = Annotated[
    int | None,
    typer.Option(help="The class whose people a class-conditional generator makes.", metavar="INT", show_default=False),
]
EarlierDeltas = Annotated[
    list[Path] | None,
    typer.Option("--delta", help="A delta to apply first; repeat in order.", show_default=False),
]
RunSeed = Annotated[
    int | None,
    typer.Option(help="Seed of the run's own randomness.", metavar="INT", show_default=False, rich_help_panel=SETTINGS),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="A TOML file with settings.", show_default=False, rich_help_panel=SETTINGS),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, as in `--set ltu.lr=3e-4`; repeatable; `guide-fast settings` lists them.",
        metavar="SECTION.KEY=VALUE",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress; results and errors only.")]


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))


def settings(config: Path | None, assignments: Sequence[str] | None, flags: Mapping[str, Any]) -> Config:
    """Flags over --set over environment over file over defaults; raises UsageError as `resolve_config`."""
    overrides: dict[str, Any] = {}
    for assignment in assignments or ():
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment} lacks a value; write --set SECTION.KEY=VALUE")
        overrides[name.strip()] = value.strip()
    overrides |= {name: value for name, value in flags.items() if value is not None}
    return resolve_config(config, os.environ, overrides)


def check_seed(seed: int) -> None:
    """Raise UsageError when `seed` cannot start a random generator."""
    if not 0 <= seed <= LARGEST_INT:
        raise UsageError(f"--seed {seed} is out of range; give a whole number from 0 to {LARGEST_INT}")


def folder_to_write(path: Path) -> Path:
    """`path` itself; raises UsageError when it is a file, before any work was done for nothing."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; name a folder with --out")
    return path


def file_to_write(path: Path) -> Path:
    """`path` itself; raises UsageError when it is a folder, before any work was done for nothing."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with --out, as in --out {path / 'name.safetensors'}")
    return path


def delta_file(path: Path) -> Path:
    """The delta at `path`; a run folder stands for the delta in it."""
    return path / "delta.safetensors" if path.is_dir() else path
