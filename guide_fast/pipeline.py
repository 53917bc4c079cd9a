"""The method as a handful of calls; the only module that knows the order of the stages."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guide_fast import assets, run_folder
from guide_fast._person import check_source, given_latent, resumed_source
from guide_fast.align import align, read_photo
from guide_fast.artifacts import Delta, Forgotten, Latent, Report
from guide_fast.config import Config, check_config
from guide_fast.deltas import apply_delta, make_delta, rollback
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.evaluate import Evaluation, evaluate, passed
from guide_fast.evaluate.grid import write_grid
from guide_fast.evaluate.report import write_report
from guide_fast.invert import invert
from guide_fast.ltu import Networks, preservation_bank, unlearn
from guide_fast.ltu.schedule import candidate_layers
from guide_fast.models import loading
from guide_fast.models.detection import load_detector
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork, load_identity
from guide_fast.models.low_resolution import attach_head, low_resolutions
from guide_fast.models.perceptual import load_perceptual
from guide_fast.progress import Progress, silent
from guide_fast.target import choose_target

DEFAULT_GENERATOR = loading.GENERATORS[0]
JUDGE, THIRD, LOSS_IDENTITY, PERCEPTUAL = "faceres", "mobileface", "dlib-resnet-v1", "efficientnet-lite0"
BANK_SEED = 11
MIN_IDENTITY = 1e-3  # length of a slot's w_u - w_mean; people lie around 10 from the mean
REPRODUCIBLE = ("forgotten", "stranger_mean", "stranger_std", "retained", "retained_p05", "fd_pre", "fd_pre_n", "steps")

__all__ = [
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

    `low_resolution` gives it the small output that unlearning and inversion use, fitted once to the base weights and
    cached. Raises UsageError for an unknown name or a delta that does not fit.
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
    KeyboardInterrupt continues with `resume`. `metrics["shortfalls"]` says where the evidence falls short of the
    request, and is empty where it holds. Raises UsageError on bad input, RefusedError where going on would forget
    nobody, GuideFastError without the held-out judge.
    """
    config = check_config(config or Config())
    candidate_layers(generator, config.ltu.layers)
    check_source(generator, photo, seed, latent, config)
    judge, third = _judges()
    networks = Networks(load_identity(LOSS_IDENTITY), load_perceptual())
    resolution = _small(generator, config.ltu.resolution, progress)
    out = Path(out) if out is not None else None
    seconds: dict[str, float] = {}
    clock = time.perf_counter()
    if resume and out is not None and (out / run_folder.LATENT).is_file():
        source = resumed_source(out / run_folder.LATENT, photo, seed, latent)
    elif photo is not None:
        source = _invert(generator, photo, face, aligned, force, config, networks, judge, progress)
    else:
        source = given_latent(generator, seed, latent)
    clock = _lap(seconds, "inversion", clock)
    if float((source.w - generator.w_mean).norm(dim=1).min()) < MIN_IDENTITY:
        raise UsageError("the latent is the mean face, which is nobody's; give the latent of a person")
    if out is not None:
        run_folder.open_run(out, config, resume=resume)
        source.save(out / run_folder.LATENT)
    bank = preservation_bank(
        generator,
        networks,
        size=config.ltu.bank,
        resolution=resolution,
        seed=BANK_SEED,
        cache_dir=_derived(),
        progress=progress,
    )
    clock = _lap(seconds, "bank", clock)
    target = choose_target(
        generator,
        source.w,
        identity=networks.identity,
        config=config.target,
        resolution=resolution,
        seed=config.ltu.seed,
    )
    result = unlearn(
        generator,
        source.w,
        target.w,
        networks=networks,
        bank=bank,
        config=replace(config.ltu, resolution=resolution),
        state_path=out / run_folder.STATE if out is not None else None,
        resume=resume and out is not None and (out / run_folder.STATE).is_file(),
        progress=progress,
    )
    clock = _lap(seconds, "unlearning", clock)
    measured = _measure(generator, result.generator, source, config, judge, third, networks, progress)
    _lap(seconds, "evaluation", clock)
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
        (out / run_folder.STATE).unlink(missing_ok=True)
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
    judge = _judge_unless(force=force)
    networks = Networks(load_identity(LOSS_IDENTITY), load_perceptual())
    return _invert(generator, photo, face, aligned, force, config, networks, judge, progress)


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
    judge, third = _judges()
    networks = Networks(load_identity(LOSS_IDENTITY), load_perceptual())
    measured = _measure(generator, changed, latent, config, judge, third, networks, progress)
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


def plan_forget(
    generator: str,
    *,
    photo: Path | None = None,
    seed: int | None = None,
    latent: Latent | None = None,
    face: int | None = None,
    aligned: bool = False,
    force: bool = False,
    config: Config | None = None,
    out: Path | None = None,
    deltas: Sequence[Path] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """What `forget` would do, without touching disk or network. Raises UsageError as `forget` would."""
    config = check_config(config or Config())
    needed = [DEFAULT_GENERATOR, LOSS_IDENTITY, PERCEPTUAL, JUDGE, THIRD, *(["mtcnn"] if photo and not aligned else [])]
    missing = [name for name in needed if not assets.available(name)]
    if photo is not None and Path(photo) != assets.verify("demo-photo").path:  # that one may not be fetched yet
        read_photo(photo, config.align)
    for path in deltas:
        Delta.load(Path(path))
    plan: dict[str, Any] = {
        "generator": generator,
        "source": f"photo:{photo}" if photo else f"seed:{seed}" if latent is None else latent.origin,
        "deltas_before": [str(path) for path in deltas],
        "resume": resume,
        "layers": config.ltu.layers,
        "target": config.target.kind,
        "steps_at_most": config.ltu.steps,
        "assets": {"needed": needed, "missing": missing},
        "would_write": [str(out / name) for name in run_folder.FILES] if out else [],
    }
    if generator != DEFAULT_GENERATOR or DEFAULT_GENERATOR not in missing:
        loaded = loading.load(generator)
        plan["layers"] = list(candidate_layers(loaded, config.ltu.layers))
        if latent is not None:
            given_latent(loaded, None, latent)
    return plan


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
    )


def _judges() -> tuple[IdentityNetwork, IdentityNetwork]:
    """Judge with third opinion; raises GuideFastError where they cannot be had, before any work is done."""
    try:
        return load_identity(JUDGE), load_identity(THIRD)
    except GuideFastError as error:
        raise type(error)(f"the held-out judge is missing and nothing may stand in for it: {error}") from None


def _judge_unless(*, force: bool) -> IdentityNetwork | None:
    """The judge; None, with a warning, only where `force` goes on without a check of the inversion."""
    try:
        return load_identity(JUDGE)
    except GuideFastError as error:
        if not force or isinstance(error, IntegrityError):
            raise
        warnings.warn(f"the inversion is not checked, as --force asks: {error}", stacklevel=2)
        return None


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


def _lap(seconds: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    seconds[stage] = now - since
    return now
