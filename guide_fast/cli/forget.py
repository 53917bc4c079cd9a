"""`guide-fast forget`: make a generator forget one person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from guide_fast._run_files import FILES, resumable, states, stopped
from guide_fast.cli import options
from guide_fast.cli.evidence import sentences
from guide_fast.cli.options import examples
from guide_fast.cli.output import NOTHING_TO_RESUME, Output, described
from guide_fast.errors import EvidenceError, UsageError

DEMO_PHOTO = "demo-photo"  # the asset


@dataclass(frozen=True)
class _Person:
    """Who is to be forgotten, as the command line names them."""

    photo: Path | None
    seed: int | None
    latent: Path | None
    demo: bool

    def check(self, face: int | None, aligned: bool) -> None:
        """Raise UsageError unless exactly one source is named, with options that fit it."""
        named = {"--photo": self.photo, "--seed": self.seed, "--latent": self.latent, "--demo": self.demo or None}
        given = [flag for flag, value in named.items() if value is not None]
        if len(given) != 1:
            said = " with ".join(given) if given else "nobody"
            raise UsageError(f"{said} was named; name the person by exactly one of {', '.join(named)}")
        if self.seed is not None:
            options.check_seed(self.seed)
        if (face is not None or aligned) and not (self.photo or self.demo):
            flag = "--aligned" if aligned else "--face"
            raise UsageError(f"{flag} concerns a photo, but {given[0]} names the person; leave {flag} out")

    @property
    def folder(self) -> Path:
        """Where the run goes when --out does not say."""
        if self.demo:
            return Path("out/demo")
        if self.seed is not None:
            return Path(f"out/seed-{self.seed}")
        return Path("out") / str((self.photo or self.latent or Path("run")).stem or "run")

    def source(self, *, fetch: bool) -> dict[str, Any]:
        """The argument of the pipeline that names the person; `fetch` allows to download the demonstration photo."""
        if self.seed is not None:
            return {"seed": self.seed}
        if self.latent is not None:
            from guide_fast.artifacts import Latent

            return {"latent": Latent.load(self.latent)}
        if self.photo is not None:
            return {"photo": self.photo}
        from guide_fast import assets

        return {"photo": assets.path(DEMO_PHOTO) if fetch else assets.verify(DEMO_PHOTO).path}


def forget(
    context: typer.Context,
    photo: options.Photo = None,
    seed: options.PersonSeed = None,
    latent: options.LatentFile = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="The person of the demonstration photo.", rich_help_panel=options.PERSON),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="out/<person>"),
    ] = None,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    label: options.Label = None,
    delta: options.EarlierDeltas = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that was stopped in --out.")] = False,
    face: options.Face = None,
    aligned: options.Aligned = False,
    force: options.Force = False,
    quick: options.Quick = False,
    layers: Annotated[
        str | None,
        typer.Option(
            help="What may change: all, coarse, fine, auto, budget=N, or name patterns with commas between.",
            show_default=False,
            rich_help_panel=options.SETTINGS,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Most steps.", show_default=False, rich_help_panel=options.SETTINGS)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Where the identity is sent: surrogate, ufo or mean.",
            show_default=False,
            rich_help_panel=options.SETTINGS,
        ),
    ] = None,
    d: Annotated[
        float | None,
        typer.Option("--d", help="How far beyond the mean face.", show_default=False, rich_help_panel=options.SETTINGS),
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(help="How far around the person.", show_default=False, rich_help_panel=options.SETTINGS),
    ] = None,
    run_seed: options.RunSeed = None,
    config: options.ConfigFile = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a generator forget one person.

    The run folder receives the delta, metrics, images before with after, a report, the latent, the settings.
    """
    person = _Person(photo, seed, latent, demo)
    person.check(face, aligned)
    folder = options.folder_to_write(out or person.folder)
    flags = {
        "ltu.layers": layers,
        "ltu.steps": steps,
        "target.kind": target,
        "target.d": d,
        "ltu.radius": radius,
        "ltu.seed": run_seed,
        "invert.refine": False if quick else None,
    }
    settings = options.settings(config, assignments, flags)
    if resume:
        resumable(folder)
    request: dict[str, Any] = {"face": face, "aligned": aligned, "force": force, "config": settings, "out": folder}
    deltas = [options.delta_file(path) for path in delta or ()]
    with Output(context, json=json, quiet=quiet) as output:
        source = person.source(fetch=not dry_run)
        from guide_fast import pipeline

        if not resume and stopped(folder):
            output.note(f"{folder} holds a stopped run; starting anew removes it (--resume would continue it)")
        if dry_run:
            plan = pipeline.plan_forget(generator, **source, **request, label=label, deltas=deltas, resume=resume)
            output.result([*described(plan), "Nothing was changed."], plan | {"dry_run": True})
            return
        before = {} if resume else states(folder)
        try:
            loaded = pipeline.load_generator(generator, label=label, deltas=deltas, progress=output.progress)
            done = pipeline.forget(loaded, **source, **request, progress=output.progress, resume=resume)
        except KeyboardInterrupt:
            left = stopped(folder) and states(folder) != before
            output.on_interrupt = output.way_on if left else NOTHING_TO_RESUME
            raise
        shortfalls = list(done.metrics.get("shortfalls", ()))
        files = {name.partition(".")[0]: folder / name for name in FILES if (folder / name).is_file()}
        lines = [*sentences(done.metrics), *(f"Falls short: {said}" for said in shortfalls)]
        lines += [f"  {name:13}{path}" for name, path in files.items()]
        output.result(lines, {"out": folder, "files": files, "metrics": done.metrics, "shortfalls": shortfalls})
        if shortfalls:
            raise typer.Exit(EvidenceError.exit_code)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast forget --photo me.jpg --out out/me",
            "guide-fast forget --seed 7 --layers coarse --steps 40",
            "guide-fast forget --latent w.safetensors --dry-run --json",
        )
    )(forget)
