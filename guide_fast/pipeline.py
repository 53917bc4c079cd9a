"""The method as a handful of calls; the only module that knows the order of the stages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guide_fast import assets, run_folder
from guide_fast._clock import StageClock
from guide_fast._networks import JUDGE, LOSS_IDENTITY, judge_unless, judges, loss_networks
from guide_fast._person import check_source, given_latent, resumed_source
from guide_fast._plan import plan_forget
from guide_fast.align import align, read_photo
from guide_fast.artifacts import Delta, Forgotten, Latent, Report
from guide_fast.config import Config, check_config
from guide_fast.deltas import apply_delta, make_delta, rollback
from guide_fast.errors import UsageError
from guide_fast.evaluate import Evaluation, evaluate, passed
from guide_fast.evaluate.grid import write_grid
from guide_fast.evaluate.report import write_report
from guide_fast.invert import InversionState, invert
from guide_fast.ltu import Networks, preservation_bank, unlearn
from guide_fast.ltu.schedule import candidate_layers
from guide_fast.models import loading
from guide_fast.models.detection import load_detector
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.low_resolution import attach_head, low_resolutions
from guide_fast.progress import Progress, silent
from guide_fast.target import choose_target

DEFAULT_GENERATOR = loading.GENERATORS[0]
BANK_SEED = 11
MIN_IDENTITY = 1e-3  # length of a slot's w_u - w_mean; people lie around 10 from the mean
REPRODUCIBLE = ("forgotten", "stranger_mean", "stranger_std", "retained", "retained_p05", "fd_pre", "fd_pre_n", "steps")

__all__ = [
    "JUDGE",
    "LOSS_IDENTITY",
    "apply_delta",
    "evaluate_delta",
    "forget",
    "invert_photo",
    "load_generator",
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


def load_generator(
    name: str | Path = DEFAULT_GENERATOR,
    *,
    deltas: Sequence[Path | Delta] = (),
    low_resolution: bool = True,
    progress: Progress = silent,
) -> Generator:
    """A generator by name or from a file, with `deltas` applied in order.

    `low_resolution` gives it the small output that unlearning and inversion use, fitted to the weights before `deltas`
    and cached; a file written by `apply` has other weights, so that another small output is fitted to it. Raises
    UsageError for an unknown name or a delta that does not fit.
    """
    generator = loading.load(str(name))
    if low_resolution:
        size = Config().ltu.resolution
        attach_head(generator, size, cache_dir=_derived(), progress=progress)
    for delta in deltas:
        apply_delta(generator, delta if isinstance(delta, Delta) else Delta.load(Path(delta)))
    return generator


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
    KeyboardInterrupt, be it during the inversion, continues with `resume`, and its seconds count all sessions.
    `metrics["shortfalls"]` says where the evidence falls short of the request, and is empty where it holds. Raises
    UsageError on bad input or when `resume` finds another request, RefusedError where going on would forget nobody,
    GuideFastError without the held-out judge.
    """
    config = check_config(config or Config())
    candidate_layers(generator, config.ltu.layers)
    check_source(generator, photo, seed, latent, config)
    out = Path(out) if out is not None else None
    stopped = out if resume and out is not None and run_folder.stopped(out) else None
    if stopped is not None:
        run_folder.check_run(stopped, config)
    judge, third = judges()
    networks = loss_networks()
    resolution = _small(generator, config.ltu.resolution, progress)
    with StageClock(stopped) as clock:
        clock.begin("inversion")

        def open_run(folder: Path) -> None:
            run_folder.open_run(folder, config, resume=stopped is not None)
            clock.keep_in(folder)

        def keep(state: InversionState) -> None:
            if out is not None:
                open_run(out)
                state.save(out / run_folder.INVERSION)

        if stopped is not None and (stopped / run_folder.LATENT).is_file():
            asked = _asked(face, aligned, config)
            source = resumed_source(stopped / run_folder.LATENT, generator, photo, seed, latent, asked, config)
        elif photo is not None:
            begun = stopped / run_folder.INVERSION if stopped is not None else None
            source = _invert(generator, photo, face, aligned, force, config, networks, judge, progress, begun, keep)
        else:
            source = given_latent(generator, seed, latent)
        if float((source.w - generator.w_mean).norm(dim=1).min()) < MIN_IDENTITY:
            raise UsageError("the latent is the mean face, which is nobody's; give the latent of a person")
        if out is not None:
            open_run(out)
            source.save(out / run_folder.LATENT)
            (out / run_folder.INVERSION).unlink(missing_ok=True)
        clock.begin("bank")
        bank = preservation_bank(
            generator,
            networks,
            size=config.ltu.bank,
            resolution=resolution,
            seed=BANK_SEED,
            cache_dir=_derived(),
            progress=progress,
        )
        clock.begin("unlearning")
        target = choose_target(
            generator,
            source.w,
            identity=networks.identity,
            config=config.target,
            resolution=resolution,
            seed=config.ltu.seed,
            progress=progress,
        )
        result = unlearn(
            generator,
            source.w,
            target.w,
            networks=networks,
            bank=bank,
            config=replace(config.ltu, resolution=resolution),
            state_path=out / run_folder.STATE if out is not None else None,
            resume=stopped is not None and (stopped / run_folder.STATE).is_file(),
            progress=progress,
        )
        clock.begin("evaluation")
        measured = _measure(generator, result.generator, source, config, judge, third, networks, progress)
        seconds = clock.seconds()
        metrics = measured.evaluation.metrics | {"steps": result.steps, "stopped": result.stopped}
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
            "peak_memory_bytes": run_folder.peak_memory_bytes(),
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
                picture = generator.synthesis(target.w[None]).image[0]
            _write_results(out, done, measured.evaluation, picture)
            run_folder.close_run(out)
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
) -> Latent:
    """Align a photo, then find the latent that renders it; raises as `align` and `invert` do."""
    config = check_config(config or Config())
    read_photo(photo, config.align)
    judge = judge_unless(force=force)
    return _invert(generator, photo, face, aligned, force, config, loss_networks(), judge, progress)


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
    measured = _measure(generator, changed, latent, config, judge, third, loss_networks(), progress)
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
            w = generator.w_mean + truncation * (w - generator.w_mean)
            pixels = generator.synthesis(w[None]).image[0].clamp(-1, 1).add(1).mul(127.5).round().byte()
            images.append(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    return images


def _invert(
    generator: Generator,
    photo: Path | str,
    face: int | None,
    aligned: bool,
    force: bool,
    config: Config,
    networks: Networks,
    judge: IdentityNetwork | None,
    progress: Progress,
    resume: Path | None = None,
    keep: Callable[[InversionState], None] | None = None,
) -> Latent:
    detector = None if aligned else load_detector()
    aligned_face = align(photo, detector=detector, config=config.align, face=face, aligned=aligned)
    return invert(
        aligned_face,
        generator,
        identity=networks.identity,
        perceptual=networks.perceptual,
        judge=judge,
        config=config.invert,
        seed=config.ltu.seed,
        force=force,
        cache_dir=_derived(),
        progress=progress,
        asked=_asked(face, aligned, config),
        resume=resume if resume is not None and resume.is_file() else None,
        keep=keep,
    )


def _asked(face: int | None, aligned: bool, config: Config) -> dict[str, Any]:
    """How the face is taken from the photo."""
    return {"face": face, "aligned": aligned} | {f"align.{key}": value for key, value in asdict(config.align).items()}


def _measure(
    base: Generator,
    changed: Any,
    source: Latent,
    config: Config,
    judge: IdentityNetwork,
    third: IdentityNetwork,
    networks: Networks,
    progress: Progress,
) -> _Measured:
    evaluation = evaluate(
        base,
        changed,
        source,
        judge=judge,
        perceptual=networks.perceptual,
        third=third,
        config=config.evaluate,
        cache_dir=_derived(),
        progress=progress,
    )
    return _Measured(evaluation, passed(evaluation.metrics))


def _write_results(out: Path, done: Forgotten, evaluation: Evaluation, target: Tensor) -> None:
    run_folder.write_json(out / "metrics.json", done.metrics | {"curve": list(done.report.curve)})
    write_grid(out, evaluation.thumbnails, target=target)
    notices = [pin.notice for pin in assets.list_assets() if pin.notice and pin.name != "demo-photo"]
    write_report(
        out,
        forgotten=done,
        thumbnails=evaluation.thumbnails,
        environment=run_folder.environment(),
        target=target,
        curve_label="similarity by the loss network at low resolution",
        notices=list(dict.fromkeys(notices)),
    )


def _small(generator: Generator, resolution: int, progress: Progress) -> int:
    """The resolution of the steps; raises UsageError when the generator has no such output."""
    if resolution not in generator.resolutions:
        if resolution in low_resolutions(generator):  # type: ignore[arg-type]
            attach_head(generator, resolution, cache_dir=_derived(), progress=progress)  # type: ignore[arg-type]
        else:
            known = ", ".join(map(str, generator.resolutions))
            raise UsageError(f"ltu.resolution = {resolution} is no output of {generator.name}; choose one of {known}")
    return resolution


def _derived() -> Path:
    """Where what is computed from pinned weights is kept."""
    return assets.home() / "derived"
