"""The method as a handful of calls; the only module that knows the order of the stages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guide_fast import assets, built, run_folder
from guide_fast._clock import StageClock
from guide_fast._export import export, plan_export
from guide_fast._generators import DEFAULT_GENERATOR, attach_small, derived_folder, load_generator
from guide_fast._networks import (
    JUDGE,
    LOSS_IDENTITY,
    Brought,
    brought_networks,
    brought_notices,
    encoder_for,
    judge_unless,
    judges,
    loss_networks,
)
from guide_fast._plan import plan_forget
from guide_fast._request import Asked, check_somebody, given_latent, noted, resumed
from guide_fast._run_files import resumable
from guide_fast.align import align
from guide_fast.artifacts import Delta, Forgotten, Latent, Report
from guide_fast.config import Config, check_config
from guide_fast.deltas import apply_delta, make_delta, rollback
from guide_fast.errors import DivergedError, UsageError
from guide_fast.evaluate import Evaluation, evaluate, judged, passed
from guide_fast.evaluate.grid import write_grid
from guide_fast.evaluate.report import write_report
from guide_fast.invert import Snapshot, invert
from guide_fast.ltu import Networks, preservation_bank, unlearn
from guide_fast.models import loading
from guide_fast.models.detection import load_detector
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.progress import Progress, silent
from guide_fast.resumption import saving, uninterrupted
from guide_fast.target import choose_target

BANK_SEED = 11
REPRODUCIBLE = ("forgotten", "stranger_mean", "stranger_std", "retained", "retained_p05", "fd_pre", "fd_pre_n", "steps")

__all__ = [
    "DEFAULT_GENERATOR",
    "JUDGE",
    "LOSS_IDENTITY",
    "apply_delta",
    "build_encoder",
    "evaluate_delta",
    "export",
    "forget",
    "invert_photo",
    "load_generator",
    "plan_export",
    "plan_forget",
    "render",
    "rollback",
    "save_generator",
]

save_generator = loading.save


@dataclass(frozen=True)
class _Measured:
    evaluation: Evaluation
    shortfalls: list[str]


def forget(
    generator: Generator,
    *,
    photo: Path | str | None = None,
    seed: int | None = None,
    latent: Latent | Tensor | None = None,
    face: int | None = None,
    aligned: bool = False,
    force: bool = False,
    config: Config | None = None,
    out: Path | None = None,
    progress: Progress = silent,
    resume: bool = False,
) -> Forgotten:
    """Forget the person of a photo, a seed or a latent; `generator` itself stays as it is.

    With `out` the folder receives delta, metrics, pictures, report, latent, settings, environment; a run stopped by
    KeyboardInterrupt, be it during the inversion, continues with `resume`, and its seconds count all sessions. A run
    that is refused leaves the folder as it was; so does one that diverges, or the latent where there was nothing.
    `metrics["shortfalls"]` says where the evidence falls short of the request, and is empty where it holds. Raises
    UsageError on bad input or when `resume` finds no run or another request, RefusedError where going on would forget
    nobody, GuideFastError without the held-out judge.
    """
    asked = Asked(photo, seed, latent, face, aligned, check_config(config or Config()))
    config, resolution = asked.config, asked.config.ltu.resolution
    asked.check_source()
    asked.check_for(generator)
    out = Path(out) if out is not None else None
    stopped = resumable(out) if resume else None
    judge, third = judges()
    brought = brought_networks()
    networks = loss_networks().to(generator.w_mean.device)
    attach_small(generator, resolution, progress=progress)
    request = asked.described(generator)
    found = resumed(stopped, request, config, force=force) if stopped is not None else None
    with StageClock(stopped) as clock, run_folder.EarlierRun(None if resume else out) as earlier:

        def keep(name: str, save: Callable[[Path], None]) -> None:
            if out is not None:
                run_folder.open_run(out, config, name, save, resume=resume, earlier=earlier)
                clock.keep_in(out)

        def keep_snapshot(snapshot: Snapshot) -> None:
            keep(run_folder.INVERSION, lambda file: snapshot.save(file, request))

        clock.begin("inversion")
        if isinstance(found, Latent):
            source = found
        elif photo is not None:
            source = noted(_invert(generator, asked, force, networks, judge, progress, found, keep_snapshot), request)
        else:
            source = noted(given_latent(generator, seed, latent), request)
        check_somebody(source.w, generator)
        clock.begin("unlearning")
        with saving(lambda: keep(run_folder.LATENT, source.save)):  # not when the target is refused
            target = choose_target(
                generator,
                source.w.to(generator.w_mean),
                identity=networks.identity,
                config=config.target,
                resolution=resolution,
                seed=config.ltu.seed,
                progress=progress,
            )
        target = replace(target, w=target.w.cpu())
        clock.begin("bank")
        bank = preservation_bank(
            generator,
            networks,
            size=config.ltu.bank,
            resolution=resolution,
            seed=BANK_SEED,
            cache_dir=derived_folder(),
            progress=progress,
        )
        clock.begin("unlearning")

        def ask_judge(student: Generator) -> tuple[float, float]:
            seen_by = _roles(judge, third, brought, networks)
            return judged(generator, student, source, **seen_by, config=config.evaluate, cache_dir=derived_folder())

        try:
            result = unlearn(
                generator,
                source.w,
                target.w,
                networks=networks,
                bank=bank,
                config=config.ltu,
                state_path=out / run_folder.STATE if out is not None else None,
                resume=stopped is not None and (stopped / run_folder.STATE).is_file(),
                confirm=ask_judge if config.ltu.confirm else None,
                progress=progress,
            )
        except DivergedError:
            if out is not None and stopped is None:
                clock.keep_in(None)
                if not earlier.bring_back():
                    run_folder.give_up_run(out)
            raise
        clock.begin("evaluation")
        measured = _measure(generator, result.generator, source, config, judge, third, brought, networks, progress)
        seconds = clock.seconds()
        metrics = measured.evaluation.metrics | {"steps": result.steps, "stopped": result.stopped}
        metrics |= {"notes": list(result.notes)} if result.notes else {}
        seeds = {"ltu": config.ltu.seed, "evaluate": config.evaluate.seed, "bank": BANK_SEED}
        delta = make_delta(
            generator,
            result.generator,
            config=config.to_dict(),
            seeds=seeds,
            metrics={name: metrics[name] for name in REPRODUCIBLE},
        )
        metrics |= {
            "shortfalls": measured.shortfalls,
            "seconds": seconds["unlearning"],
            "seconds_by_stage": seconds,
            "peak_memory_bytes": clock.peak_memory_bytes(),
            "layers": list(result.layers),
            "parameters_moved": delta.num_parameters,
            "origin": source.origin,
            "inversion_similarity": source.similarity,
            "target": {"kind": target.kind, "d": target.d, "pushes": target.pushes, "similarity": target.similarity},
        }
        done = Forgotten(delta, metrics, source, target, Report(metrics, result.curve))
        if out is not None:
            delta.save(out / "delta.safetensors")
            metrics["delta_bytes"] = (out / "delta.safetensors").stat().st_size
            with torch.inference_mode():
                picture = generator.synthesis(target.w.to(generator.w_mean)[None]).image[0].cpu()
            _write_results(out, done, measured.evaluation, picture)
            with uninterrupted():
                run_folder.close_run(out)
                clock.keep_in(None)
        else:
            metrics["delta_bytes"] = sum(t.numel() * t.element_size() for t in delta.tensors.values())
    return done


def invert_photo(
    generator: Generator,
    photo: Path | str,
    *,
    face: int | None = None,
    aligned: bool = False,
    force: bool = False,
    config: Config | None = None,
    progress: Progress = silent,
    state: Path | None = None,
    resume: bool = False,
) -> Latent:
    """Align a photo, then find the latent that renders it, with a note of the request; raises as both steps do.

    A search stopped by KeyboardInterrupt leaves the file `state`, from which `resume` with the same arguments goes on
    to the same latent; the file is gone afterwards. Raises UsageError when `resume` finds none, or that of another
    request.
    """
    asked = Asked(photo, None, None, face, aligned, check_config(config or Config()))
    asked.check_source()
    if resume and (state is None or not state.is_file()):
        raise UsageError(f"there is no stopped inversion at {state}; leave resume out to start anew")
    judge = judge_unless(force=force)
    request = asked.described(generator)
    found = Snapshot.load(state, request) if resume and state is not None else None

    def keep(snapshot: Snapshot) -> None:
        if state is not None:
            snapshot.save(state, request)

    latent = noted(_invert(generator, asked, force, loss_networks(), judge, progress, found, keep), request)
    if state is not None:
        state.unlink(missing_ok=True)
    return latent


def build_encoder(generator: Generator, *, config: Config | None = None, progress: Progress = silent) -> Path:
    """Train the small encoder of `generator` (a quarter of an hour on two cores), keep it for every later inversion.

    Returns its file. Raises UsageError when the settings leave nothing to train on, GuideFastError when the disk
    refuses.
    """
    networks = loss_networks()
    settings = check_config(config or Config()).encoder
    return built.build_encoder(
        generator, identity=networks.identity, perceptual=networks.perceptual, config=settings, progress=progress
    )


def evaluate_delta(
    generator: Generator,
    delta: Delta,
    latent: Latent,
    *,
    config: Config | None = None,
    out: Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure a delta on `generator` (with earlier deltas applied), which stays as it is."""
    config = check_config(config or Config())
    changed = apply_delta(copy.deepcopy(generator), delta)
    judge, third = judges()
    brought = brought_networks()
    measured = _measure(generator, changed, latent, config, judge, third, brought, loss_networks(), progress)
    report = Report(measured.evaluation.metrics | {"shortfalls": measured.shortfalls})
    if out is not None:
        run_folder.write_json(Path(out) / "metrics.json", report.metrics)
        write_grid(Path(out), measured.evaluation.thumbnails)
    return report


def render(
    generator: Generator,
    *,
    seeds: Sequence[int] = (),
    latent: Latent | Tensor | None = None,
    truncation: float = 1.0,
) -> list[Image.Image]:
    """Full-resolution images of seeds (z from a generator of that seed), or of one latent."""
    if latent is not None:
        latents = [given_latent(generator, None, latent).w]
    else:
        latents = [given_latent(generator, seed, None).w for seed in seeds]
    images = []
    with torch.inference_mode():
        for w in latents:
            w = generator.w_mean + truncation * (w.to(generator.w_mean) - generator.w_mean)
            pixels = generator.synthesis(w[None]).image[0].clamp(-1, 1).add(1).mul(127.5).round().byte()
            images.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()))
    return images


def _invert(
    generator: Generator,
    asked: Asked,
    force: bool,
    networks: Networks,
    judge: IdentityNetwork | None,
    progress: Progress,
    resume: Snapshot | None = None,
    keep: Callable[[Snapshot], None] | None = None,
) -> Latent:
    assert asked.photo is not None
    config = asked.config
    detector = None if asked.aligned else load_detector()
    return invert(
        align(asked.photo, detector=detector, config=config.align, face=asked.face, aligned=asked.aligned),
        generator,
        identity=networks.identity,
        perceptual=networks.perceptual,
        judge=judge,
        encoder=encoder_for(generator, networks),
        config=config.invert,
        seed=config.ltu.seed,
        force=force,
        cache_dir=derived_folder(),
        progress=progress,
        resume=resume,
        keep=keep,
    )


def _roles(judge: IdentityNetwork, third: IdentityNetwork, brought: Brought, networks: Networks) -> dict[str, Any]:
    """What an evaluation looks through."""
    return {"judge": judge, "third": third, "perceptual": networks.perceptual, **brought._asdict()}


def _measure(
    base: Generator,
    changed: Any,
    source: Latent,
    config: Config,
    judge: IdentityNetwork,
    third: IdentityNetwork,
    brought: Brought,
    networks: Networks,
    progress: Progress,
) -> _Measured:
    evaluation = evaluate(
        base,
        changed,
        source,
        **_roles(judge, third, brought, networks),
        config=config.evaluate,
        cache_dir=derived_folder(),
        progress=progress,
    )
    return _Measured(evaluation, passed(evaluation.metrics))


def _write_results(out: Path, done: Forgotten, evaluation: Evaluation, target: Tensor) -> None:
    run_folder.write_json(out / "metrics.json", done.metrics | {"curve": list(done.report.curve)})
    write_grid(out, evaluation.thumbnails, target=target)
    notices = [pin.notice for pin in assets.list_assets() if pin.notice and pin.name != "demo-photo"]
    notices += brought_notices(done.metrics, done.source.notes.get("encoder"))
    write_report(
        out,
        forgotten=done,
        thumbnails=evaluation.thumbnails,
        environment=run_folder.environment(),
        target=target,
        curve_label="similarity by the loss network at low resolution",
        notices=list(dict.fromkeys(notices)),
    )
