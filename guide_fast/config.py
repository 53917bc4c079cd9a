"""Settings of every stage, with the paper's constants as defaults."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from guide_fast.errors import UsageError

# The paper gives lengths in a flattened [14, 512] tensor with equal rows; one row carries 1/sqrt(14) of them.
PAPER_SLOTS = 14
UFO_D = 30 / math.sqrt(PAPER_SLOTS)  # per slot: 8.02
ADJACENCY_RADIUS = 15 / math.sqrt(PAPER_SLOTS)  # per slot: 4.01

ENVIRONMENT_PREFIX = "GUIDE_FAST_"
_OTHERS = ("HOME", "OFFLINE", "DEBUG", "ISA", "CACHE_MB", "WINOGRAD", "CUDA", "ARCHITECTURES", "PYTHONS", "ADMIN_TOKEN")
NOT_SETTINGS = frozenset(ENVIRONMENT_PREFIX + name for name in _OTHERS)


@dataclass(frozen=True)
class AlignConfig:
    """Which photos are good enough, lengths in pixels of the photo, angles in degrees."""

    min_image_px: int = 64
    max_image_px: int = 16_384
    min_face_px: int = 80  # shorter side of the detected box
    # Ten good photos score 0.98 to 1.00; lying on their side, where landmarks go astray, one of four still scores 0.96.
    min_score: float = 0.95
    # Variance of the Laplacian of the aligned face at 256 px, grey 0 to 255. Ten good photos: 234 to 1002; the same
    # blurred by a Gaussian of 4 px (of 1024): 20 to 119, of 6 px: 7 to 33, of 8 px: 4 to 10.
    min_sharpness: float = 12.0
    max_yaw: float = 45.0  # estimated from five landmarks, good to about ten degrees
    max_roll: float = 45.0  # on four turned photos the estimate was within 7 degrees up to here, and off by 50 at 75


@dataclass(frozen=True)
class InvertConfig:
    """Photo to W+; the loss terms are identity, perceptual distance, pixels and a latent prior."""

    # Set on a few photos with the default generator, each change tried on one of them: steps 40 + 60, lr 0.1, prior
    # 0.02 or perceptual 0.5 move the judge's similarity (0.83 to 0.86 there) by -0.03 to +0.01.
    samples: int = 256  # random latents that the first guess is computed from
    steps_w: int = 20
    steps_w_plus: int = 80
    lr: float = 0.05  # in units of W's standard deviation
    identity: float = 1.0
    perceptual: float = 1.0
    pixel: float = 0.2
    prior: float = 0.1  # as similar as with 0.02, but nearer to w_mean
    patience: int = 40  # steps without improvement before a phase ends; looked at every 20
    resolution: int = 256
    refine: bool = True  # off: an encoder's code, with `quick_steps` steps at the rate `quick_lr`
    quick_steps: int = 6
    quick_lr: float = 0.1
    # Judge's similarity of the inversion to the photo, below which the run refuses. Strangers score 0.39 +- 0.06, the
    # first guess 0.3 to 0.6, finished inversions of seven photos 0.80 to 0.87.
    min_similarity: float = 0.6


@dataclass(frozen=True)
class EncoderConfig:
    """Training of the small encoder, from which an inversion starts."""

    samples: int = 16384  # faces rendered; 2.4 GB of memory
    held_out: int = 512  # of them, on which the error is measured
    epochs: int = 8
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class TargetConfig:
    """Where the forgotten identity is sent; `d` is a length per style slot."""

    kind: str = "surrogate"  # "ufo", "mean" or "surrogate"
    d: float = UFO_D
    candidates: int = 16  # surrogates compared
    turn: float = 60.0  # degrees between a surrogate and the UFO direction: 0 is UFO, 90 has no part of it
    max_similarity: float = 0.25  # identity network's, target to source (0 is a typical stranger); above it: pushed
    max_pushes: int = 4  # each push lengthens d by `push`
    push: float = 1.25


@dataclass(frozen=True)
class LtuConfig:
    """Latent target unlearning; weights of the loss terms are the paper's unless a comment says otherwise."""

    steps: int = 60
    lr: float = 1e-4
    n_adjacent: int = 2
    n_global: int = 2
    radius: float = ADJACENCY_RADIUS  # neighbours lie within it, per slot
    feature: float = 1e-2
    perceptual: float = 1.0
    identity: float = 0.1
    preservation: float = 3.0  # weight of the global term (paper: 1)
    layers: str = "auto"  # all, coarse, fine, auto, budget=N (parameters), or comma-separated name patterns
    keep: float = 0.9  # auto: share of the forgetting per step that the chosen layers carry
    warm_start: bool = True  # closed-form solution of the modulation layers before the first step
    ridge: float = 1.0  # of the closed form and of the whitening, in mean variances
    population: int = 8192  # mapped latents behind the whitening
    bank: int = 64  # people whose teacher features are kept for the global term
    reached: float = 0.1  # identity network's similarity at which the person counts as forgotten during steps
    hold: int = 3  # steps for which that must hold before stopping
    resolution: int = 256
    seed: int = 0
    rank: int = 0  # of the update of a matrix or a convolution; 0: the whole tensor moves
    warmup: int = 0  # steps over which the learning rate rises to `lr`
    schedule: str = "constant"  # of the learning rate after that; "cosine" falls to 0 at the last step
    # What keeps everybody else: "pairs" (the paper's global term), "trust_region" (no further from the start than
    # `trust`), "ewc" (a penalty weighed by what bystanders depend on); the latter two render no bystanders in a step.
    preserve: str = "pairs"
    trust: float = 1e-3  # root mean square of a layer's change after the closed form, whitened where it is a modulation
    ewc: float = 50.0  # weight of the penalty (SUGAR's lambda)
    fisher: int = 8  # bystanders behind its Fisher information
    confirm: bool = False  # the judge has to agree that the person is forgotten before the steps end early
    # Switches, each of which can be turned off for comparison; the result stays the same within rounding.
    batched: bool = True  # one pass for all images of a step; off: one image at a time
    cached_target: bool = True  # what the teacher makes of the target is kept; off: rendered in each step
    banked: bool = True  # what it makes of bystanders comes from the bank; off: rendered in each step
    frozen: bool = True  # no gradients of the frozen networks' weights
    restrict_backward: bool = True  # gradients of the chosen layers alone; off: of every layer
    channels_last: bool = True
    fused_adam: bool = True  # off: torch.optim.Adam
    precision: str = "auto"  # "half": float16 where the range allows, on a GPU; "auto": float32 on a CPU, else half
    identity_stream: str = "auto"  # the identity network on a CUDA stream of its own
    cuda_graph: str = "auto"  # gradients of a step replayed as one CUDA graph
    compiled: bool = False  # torch.compile of the step


@dataclass(frozen=True)
class EvaluateConfig:
    """Sample sizes of the metrics; every image is rendered at the generator's full resolution."""

    neighbours: int = 8
    radius: float = ADJACENCY_RADIUS
    bystanders: int = 64
    stranger_pairs: int = 200
    fd_images: int = 256
    batch: int = 4
    seed: int = 20_240_613  # never the seed of the training latents


@dataclass(frozen=True)
class Config:
    """All stages together."""

    align: AlignConfig = field(default_factory=AlignConfig)
    invert: InvertConfig = field(default_factory=InvertConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    ltu: LtuConfig = field(default_factory=LtuConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as written to `config.json` and `--config` files."""
        return dataclasses.asdict(self)


# Smallest value, largest value of a setting; every other number is at least 0. No whole number exceeds LARGEST_INT.
LARGEST_INT = 2**63 - 1
_RANGES: dict[str, tuple[float, float]] = {
    "align.min_image_px": (1, math.inf),
    "align.max_image_px": (1, math.inf),
    "align.min_face_px": (1, math.inf),
    "align.min_score": (0, 1),
    "align.max_yaw": (0, 90),
    "align.max_roll": (0, 180),
    "invert.samples": (1, math.inf),
    "invert.patience": (1, math.inf),
    "invert.resolution": (1, math.inf),
    "invert.min_similarity": (-1, 1),
    "encoder.samples": (2, math.inf),
    "encoder.held_out": (1, math.inf),
    "encoder.epochs": (1, math.inf),
    "encoder.batch": (1, math.inf),
    "encoder.dropout": (0, 1),
    "target.max_similarity": (-1, 1),
    "target.push": (1, math.inf),
    "target.candidates": (1, math.inf),
    "target.turn": (0, 180),
    "ltu.steps": (1, math.inf),
    "ltu.keep": (0, 1),
    "ltu.n_global": (1, math.inf),
    "ltu.population": (2, math.inf),
    "ltu.bank": (1, math.inf),
    "ltu.reached": (-1, 1),
    "ltu.hold": (1, math.inf),
    "ltu.resolution": (1, math.inf),
    "ltu.fisher": (1, math.inf),
    "evaluate.bystanders": (1, math.inf),
    "evaluate.stranger_pairs": (2, math.inf),  # fewer have no standard deviation
    "evaluate.fd_images": (3, math.inf),  # fewer have no covariance
    "evaluate.batch": (1, math.inf),
}
# 0 would leave everything as it is
_POSITIVE = frozenset({"invert.lr", "invert.quick_lr", "encoder.lr", "target.d", "ltu.lr", "ltu.keep", "ltu.trust"})
SWITCH = ("auto", "on", "off")  # "on" is refused where it cannot run
_CHOICES = {
    "target.kind": ("ufo", "mean", "surrogate"),
    "ltu.schedule": ("constant", "cosine"),
    "ltu.preserve": ("pairs", "trust_region", "ewc"),
    "ltu.precision": ("auto", "fp32", "half"),
    "ltu.identity_stream": SWITCH,
    "ltu.cuda_graph": SWITCH,
}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def resolve_config(toml: Path | None, environment: Mapping[str, str], overrides: Mapping[str, Any]) -> Config:
    """Defaults, then the TOML file, then GUIDE_FAST_<SECTION>_<KEY> variables, then `overrides`; the last one wins.

    `overrides` maps "section.key" to a value, or to a text that is read like a variable's; None leaves the setting
    alone. Raises UsageError on an unknown section or key, a wrong type, a value out of range, an unreadable file.
    """
    config = Config()
    if toml is not None:
        config = _from_toml(config, toml)
    names = {f"{ENVIRONMENT_PREFIX}{name.replace('.', '_').upper()}": name for name in _settings(config)}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in NOT_SETTINGS:
            if variable not in names:
                nearest = _nearest(variable, [*names, *NOT_SETTINGS])
                raise UsageError(f"environment variable {variable} is no setting; unset it, or use {nearest}")
            config = _changed(config, names[variable], environment[variable], variable, parse=True)
    for name, value in overrides.items():
        if value is not None:
            if name not in _settings(config):
                nearest = _nearest(name, _settings(config))
                raise UsageError(f"setting {name!r} is unknown; the nearest known one is {nearest}")
            config = _changed(config, name, value, name, parse=isinstance(value, str))
    return check_config(config)


def check_config(config: Config) -> Config:
    """`config` itself; raises UsageError naming the first value that has a wrong type or is out of range."""
    for name, value in _settings(config).items():
        _check(name, value, name)
    smallest, largest = config.align.min_image_px, config.align.max_image_px
    if smallest > largest:
        raise UsageError(
            f"align.min_image_px = {smallest} exceeds align.max_image_px = {largest}; lower the one or raise the other"
        )
    images, bystanders = config.evaluate.fd_images, config.evaluate.bystanders
    if bystanders > images:
        raise UsageError(
            f"evaluate.bystanders = {bystanders} exceeds evaluate.fd_images = {images}, of which they are the first; "
            "lower the one or raise the other"
        )
    return config


def settings_toml(config: Config) -> str:
    """`config` as a TOML file that `resolve_config` reads back, with what each setting takes as a comment."""
    lines: list[str] = []
    for section, part in vars(config).items():
        lines += ["", f"# {_first_line(part)}", f"[{section}]"] if lines else [f"# {_first_line(part)}", f"[{section}]"]
        for key, value in vars(part).items():
            said = json.dumps(value)  # of these types JSON and TOML write the same
            lines.append(f"{key} = {said}  # {_taken(f'{section}.{key}')}")
    return "\n".join(lines) + "\n"


def _first_line(part: Any) -> str:
    return (part.__doc__ or "").splitlines()[0]


def _taken(name: str) -> str:
    """What a setting takes, as a reader says it."""
    if name in _CHOICES:
        return "one of " + ", ".join(_CHOICES[name])
    wanted = _type_of(name)
    if wanted in (bool, str):
        return _TYPE_NAMES[wanted]
    low, high = _RANGES.get(name, (0, math.inf))
    least = "above 0" if name in _POSITIVE else f"at least {low}"
    return f"{_TYPE_NAMES[wanted]}, {least}" + (f", at most {high}" if math.isfinite(high) else "")


def _from_toml(config: Config, path: Path) -> Config:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give --config a TOML file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text file; give --config a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}; correct that line") from None
    sections = vars(config)
    for section, values in content.items():
        if section not in sections:
            nearest = _nearest(section, sections)
            raise UsageError(f"{path} has an unknown section [{section}]; the nearest known one is [{nearest}]")
        if not isinstance(values, dict):
            raise UsageError(f"{path}: {section} = {values!r} is no section; write [{section}] with keys below it")
        keys = vars(sections[section])
        for key, value in values.items():
            if key not in keys:
                nearest = _nearest(key, keys)
                raise UsageError(f"{path}: [{section}] has no key {key}; the nearest known one is {nearest}")
            config = _changed(config, f"{section}.{key}", value, f"{path}: [{section}] {key}", parse=False)
    return config


def _settings(config: Config) -> dict[str, Any]:
    """Every setting as "section.key"."""
    return {f"{section}.{key}": value for section, part in vars(config).items() for key, value in vars(part).items()}


def _changed(config: Config, name: str, value: Any, origin: str, *, parse: bool) -> Config:
    section, key = name.split(".")
    wanted = _type_of(name)
    if _CHOICES.get(name) == SWITCH:  # a reader who thinks of it as true or false is understood
        value = {"true": "on", "false": "off"}.get(str(value).lower(), value)
    try:
        if parse and wanted is bool:
            value = {"true": True, "false": False}[value.lower()]
        elif parse or (wanted is float and type(value) is int):
            value = wanted(value)
    except (ValueError, KeyError, OverflowError):
        raise _wrong_type(name, value, origin) from None
    _check(name, value, origin)
    part = dataclasses.replace(getattr(config, section), **{key: value})
    return dataclasses.replace(config, **{section: part})


def _check(name: str, value: Any, origin: str) -> None:
    """Raise UsageError when `value` has a wrong type or is out of range."""
    wanted = _type_of(name)
    if type(value) is not wanted and not (wanted is float and type(value) is int):  # True is no whole number
        raise _wrong_type(name, value, origin)
    if isinstance(value, str):
        choices = _CHOICES.get(name)
        if choices and value not in choices:
            raise UsageError(f"{origin} = {value!r} is unknown; choose one of {', '.join(choices)}")
        if not value.strip():
            raise UsageError(f"{origin} is empty; the default is {_default(name)!r}")
        return
    low, high = _RANGES.get(name, (0, math.inf))
    if isinstance(value, int):
        high = min(high, LARGEST_INT)
    problem = ""
    if isinstance(value, float) and not math.isfinite(value):
        problem = "must be a finite number"
    elif name in _POSITIVE and value <= 0:
        problem = "must be above 0"
    elif value < low:
        problem = f"must be at least {low}"
    elif value > high:
        problem = f"must be at most {high}"
    if problem:
        raise UsageError(f"{origin} = {value} {problem}; the default is {_default(name)}")


def _wrong_type(name: str, value: Any, origin: str) -> UsageError:
    return UsageError(f"{origin} = {value!r} is not {_TYPE_NAMES[_type_of(name)]}; the default is {_default(name)!r}")


def _type_of(name: str) -> Any:
    section, key = name.split(".")
    return get_type_hints(type(getattr(Config(), section)))[key]


def _default(name: str) -> Any:
    return _settings(Config())[name]


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]
