"""Building one plan: an ONNX graph compiled by TensorRT for one GPU architecture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export import cuda_driver
from guide_fast.export.cuda_driver import Gpu
from guide_fast.export.tensorrt_flavour import WEIGHTS, Messages, Tensorrt
from guide_fast.export.tensorrt_network import (
    inputs,
    mark_refittable,
    node_named_in,
    parsed,
    profile,
    require,
    with_inputs,
)


@dataclass(frozen=True)
class PlanSettings:
    """How engines are built."""

    weights: str = "refit"  # one of WEIGHTS
    max_batch: int = 8
    strip: bool = False  # leave the refittable weights out of the plan; the session puts them in
    timing_cache: Path | None = None  # measurements of kernels, kept between builds


@dataclass(frozen=True)
class Plan:
    """A serialised engine with what was found out while building it."""

    data: bytes
    exchangeable: tuple[str, ...]  # tensors that a session can replace, in the order of the request
    proven_by: str  # "engine": its refitter lists them; "network": the builder was told, no GPU here can load the plan
    profile: Mapping[str, Mapping[str, tuple[int, ...]]]  # input -> min, opt, max shape
    seconds: float


def check(
    tensorrt: Tensorrt, settings: PlanSettings, capabilities: Sequence[int], *, gpu: Gpu | str | None = None
) -> tuple[int, ...]:
    """The compute capabilities to build for; raises UsageError for what cannot be built here.

    Without `capabilities` it is the GPU at hand. `gpu` is that GPU, or why there is none; by default the driver says.
    """
    gpu = cuda_driver.found() if gpu is None else gpu
    if settings.weights not in WEIGHTS:
        raise UsageError(f"--weights {settings.weights} is unknown; choose from {', '.join(WEIGHTS)}")
    if settings.max_batch < 1:
        raise UsageError(f"--max-batch is {settings.max_batch}; give 1 or more")
    if settings.strip and settings.weights != "refit":
        raise UsageError(f"--strip leaves out what is refitted later, but --weights is {settings.weights}; drop one")
    if settings.timing_cache is not None and not tensorrt.flavour.timing_cache:
        raise UsageError(f"{tensorrt.flavour.title} measures nothing while it builds; leave --timing-cache out")
    wanted = tensorrt.checked(capabilities)
    if isinstance(gpu, str):
        if not tensorrt.flavour.ahead:
            raise UsageError(
                f"{tensorrt.flavour.title} builds on the GPU it builds for, and {gpu}; run it where one is"
            )
        if settings.weights == "refit":
            # it compiles the kernels that rewrite weights for the device at hand; so do 1.4, 1.6, 1.7
            raise UsageError(
                f"{tensorrt.flavour.title} builds a refittable engine only where a GPU is, and {gpu}; "
                f"use another machine, or choose --weights inputs, which needs none"
            )
        if not wanted:
            raise UsageError(f"name the GPU to build for with --compute-capability (86, 89, 120): {gpu}")
        return wanted
    here = (gpu.compute_capability,)
    return wanted or (tensorrt.checked(here) if tensorrt.flavour.ahead else here)


def build(
    tensorrt: Tensorrt,
    model: Any,  # onnx.ModelProto
    *,
    part: str,
    names: Sequence[str],  # the tensors that a delta can touch
    capability: int,
    settings: PlanSettings,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Raises GuideFastError that names the ONNX node TensorRT cannot build, or the tensor it could not exchange."""
    begun, messages = clock(), Messages()
    logger = tensorrt.logger(messages)
    builder = tensorrt.module.Builder(logger)
    as_inputs = settings.weights == "inputs"
    model = with_inputs(model, names) if as_inputs else model
    network = parsed(tensorrt, builder, logger, model.SerializeToString(), part=part)
    config = builder.create_builder_config()
    shapes = inputs(network)
    if as_inputs:
        require(names, shapes, part=part, what="inputs of the network")
    elif settings.weights == "refit":
        mark_refittable(network, names, part=part)
    ranges = profile(shapes, max_batch=settings.max_batch)
    _configure(tensorrt, builder, config, settings, ranges, capability)
    data = _serialised(tensorrt, builder, network, config, messages, part)
    _keep_timings(config, settings.timing_cache)
    proven_by = "network"
    if settings.weights == "refit" and (listed := refittable(tensorrt, data)) is not None:
        require(names, listed, part=part, what="weights that the built engine can refit")
        proven_by = "engine"
    exchangeable = () if settings.weights == "fixed" else tuple(names)
    return Plan(data, exchangeable, proven_by, ranges, clock() - begun)


def marked(tensorrt: Tensorrt, model: bytes, *, part: str, names: Sequence[str]) -> tuple[str, ...]:
    """The tensors that a network of `model` takes as refittable weights; needs no GPU, builds nothing.

    Raises GuideFastError naming one of `names` that it does not take.
    """
    logger = tensorrt.logger(Messages())
    builder = tensorrt.module.Builder(logger)
    network = parsed(tensorrt, builder, logger, model, part=part)
    mark_refittable(network, names, part=part)
    return tuple(name for name in names if network.are_weights_marked_refittable(name))


def refittable(tensorrt: Tensorrt, plan: bytes) -> tuple[str, ...] | None:
    """The weights that the engine of a plan can refit; None where this machine cannot load the plan."""
    logger = tensorrt.logger(Messages())
    runtime = tensorrt.module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    return tuple(tensorrt.module.Refitter(engine, logger).get_all_weights())


def _configure(
    tensorrt: Tensorrt,
    builder: Any,
    config: Any,
    settings: PlanSettings,
    ranges: Mapping[str, Mapping[str, tuple[int, ...]]],
    capability: int,
) -> None:
    trt = tensorrt.module
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32: its 10 bits of mantissa would miss the bound of 1e-4
    if settings.weights == "refit":
        # plain REFIT may drop the bias of a GEMM (TensorRT 11.3, known issues); this one keeps what is marked
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
        if settings.strip:
            config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    shapes = builder.create_optimization_profile()
    for name, sizes in ranges.items():
        shapes.set_shape(name, sizes["min"], sizes["opt"], sizes["max"])
    config.add_optimization_profile(shapes)
    if tensorrt.flavour.ahead:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    if settings.timing_cache is not None:
        known = settings.timing_cache.read_bytes() if settings.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)


def _serialised(tensorrt: Tensorrt, builder: Any, network: Any, config: Any, messages: Messages, part: str) -> bytes:
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        return bytes(plan)
    reason = messages.reason()
    node = node_named_in(network, reason)
    place = f"ONNX node {node!r} of part {part!r}" if node else f"part {part!r}"
    raise GuideFastError(
        f"{tensorrt.flavour.title} {tensorrt.version} cannot build {place}: {reason}; "
        f"export with another --precision, or try a newer version of it"
    )


def _keep_timings(config: Any, path: Path | None) -> None:
    if path is not None and (cache := config.get_timing_cache()) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(cache.serialize()))
