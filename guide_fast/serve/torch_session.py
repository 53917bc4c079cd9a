"""A session on a PyTorch generator, whose next version shares every tensor that a delta leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.deltas import apply_delta, rollback
from guide_fast.errors import UsageError
from guide_fast.models.generator import Generator
from guide_fast.serve.session import Array, Inputs, Shape, Version
from guide_fast.serve.swapping import ReferenceSession


@dataclass(frozen=True)
class TorchWeights:
    """A generator that is changed no more."""

    generator: Generator  # where the weights are hashed
    on_device: Generator  # where they render; the same one on a CPU
    version: Version


class TorchSession(ReferenceSession[TorchWeights, Delta]):
    """Renders with PyTorch; takes `generator` over, which nobody else may change from then on.

    On a CPU image by image, so that an image has the same bits whoever else asked at the time. On another `device` in
    batches of at most `batch`, whose sums may round by their size.
    """

    runtime = "torch"

    def __init__(self, generator: Generator, *, device: str = "cpu", batch: int | None = None) -> None:
        """Raises UsageError for a device that torch does not find."""
        self._device = _device(device)
        self.batch = batch or (1 if self._device.type == "cpu" else 8)
        version = Version(weights_sha256(generator), tuple(generator.lineage))
        # no tensor of the live generator may be written through an alias of ours
        super().__init__(shape_of(generator), TorchWeights(generator, self._moved(generator), version))

    def _read(self, delta: Path) -> Delta:
        return Delta.load(delta)

    def _changed(self, weights: TorchWeights, change: Delta, *, undo: bool) -> TorchWeights:
        generator = sharing(weights.generator, change.tensors)
        (rollback if undo else apply_delta)(generator, change)  # checks both hashes
        version = Version(change.base_sha256 if undo else change.result_sha256, tuple(generator.lineage))
        return TorchWeights(generator, self._renewed(weights, generator, change), version)

    def _renewed(self, weights: TorchWeights, generator: Generator, change: Delta) -> Generator:
        """What renders the new version, ready; waits until the device has it."""
        if self._device.type == "cpu":
            return generator
        made = sharing(weights.on_device, change.tensors)
        host = dict(generator.named_parameters())
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name in change.tensors:
                    parameter.copy_(host[name])
        torch.cuda.synchronize(self._device)
        return made

    def _images(self, weights: TorchWeights, inputs: Inputs) -> Array:
        with torch.inference_mode():
            images = rendered(weights.on_device, *self._on_device(inputs))
        return images.float().cpu().numpy()

    def _on_device(self, inputs: Inputs) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
        """z [N, Z], w [N, L, D], c [N, C], truncation [N]."""
        z, w, c = (None if a is None else torch.from_numpy(a).to(self._device) for a in (inputs.z, inputs.w, inputs.c))
        return z, w, c, torch.from_numpy(inputs.truncation).to(self._device)

    def _moved(self, generator: Generator) -> Generator:
        if self._device.type == "cpu":
            return generator
        return cast(Generator, copy.deepcopy(cast(nn.Module, generator)).to(self._device))


def rendered(
    generator: Generator,
    z: Tensor | None,  # [N, Z]
    w: Tensor | None,  # [N, L, D]
    c: Tensor | None,  # [N, C]: labels go to the mapping, cameras to the synthesis
    truncation: Tensor,  # [N]
) -> Tensor:
    """Images [N, 3, R, R]; a w that is not truncated stays as it is, to the bit."""
    camera = generator.cameras is not None
    if w is None:
        assert z is not None
        w = generator.mapping(z, None if camera else c)
    mean, amount = generator.w_mean, truncation[:, None, None]
    w = torch.where(amount == 1, w, mean + amount * (w - mean))
    return generator.synthesis(w, c if camera else None).image


def sharing(generator: Generator, names: Sequence[str] | Any) -> Generator:
    """A copy whose tensors are those of `generator`, but for parameters called `names`, which are its own."""
    module = cast(nn.Module, generator)
    own = {*names}
    tensors: list[Tensor] = [parameter for name, parameter in module.named_parameters() if name not in own]
    tensors += module.buffers()
    return cast(Generator, copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}))


def shape_of(generator: Generator) -> Shape:
    """What a generator takes, what it makes."""
    c_dim = int(getattr(generator, "c_dim", 0))
    if generator.cameras is not None:
        c_dim = len(generator.cameras.frontal)
    return Shape(
        name=generator.name,
        z_dim=generator.z_dim,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        c_dim=c_dim,
        resolution=generator.img_resolution,
        c_needed=bool(c_dim) and generator.cameras is None and getattr(generator, "label", None) is None,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"device {name!r} cannot be used ({said}); choose cpu, or cuda where there is one") from None
    return device
