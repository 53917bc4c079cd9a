"""Linear heads that turn an earlier block's features into a small image, so that a step is cheap on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.artifacts import weights_sha256
from guide_fast.derived import derived
from guide_fast.errors import UsageError
from guide_fast.models.mobile_stylegan import SLOTS_PER_BLOCK, Block, MobileStyleGAN, wavelet_image
from guide_fast.progress import Progress, silent

FIT_SAMPLES = 32
FIT_SEED = 5
RIDGE = 1e-3  # relative to the mean squared feature


class LowResolutionHead(nn.Module):
    """Features of a block [N, C, H, W], scaled by the next block's style -> image [N, 3, 2H, 2W]."""

    def __init__(self, channels: int, slot: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(12, channels, 1, 1))
        self.register_buffer("bias", torch.zeros(12))
        self.slot = slot
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor, ws: Tensor, next_block: Block, *, impl: str = "auto") -> Tensor:
        """`ws` [N, L, D]; the scale is the one with which `next_block` reads these features."""
        return wavelet_image(x, self.weight, self.bias, next_block.up(ws[:, self.slot]), impl=impl)


def attach_head(
    generator: MobileStyleGAN,
    resolution: int,
    *,
    cache_dir: Path | None = None,
    write: bool = True,
    progress: Progress = silent,
) -> None:
    """Give `generator` an image output at `resolution`, from the cache or fitted now (ridge regression).

    The head belongs to the weights that `generator` has now, those of a file with deltas applied, too, and to them the
    cache file belongs. Deltas applied afterwards keep it, so attach it before them: fitting takes seconds, and person,
    bystanders are then seen through one head before and after. What depends on small images asks
    `artifacts.rendering_sha256`. Without `write` the cache stays as it is. Raises UsageError for a resolution that no
    block has.
    """
    if resolution not in generator.small_resolutions:
        known = ", ".join(map(str, generator.small_resolutions))
        raise UsageError(f"{generator.name} has no block for {resolution} px; choose one of {known}")
    index = generator.small_resolutions.index(resolution)
    block = cast(Block, generator.blocks[index])
    head = LowResolutionHead(block.conv2.bias.numel(), 1 + SLOTS_PER_BLOCK * (index + 1))
    key = {
        "base_sha256": weights_sha256(generator),
        "resolution": resolution,
        "samples": FIT_SAMPLES,
        "seed": FIT_SEED,
        "ridge": RIDGE,
    }
    tensors = derived(
        cache_dir,
        f"head-{resolution}",
        "low-resolution head",
        key,
        lambda: _fit(generator, index, head, resolution, progress),
        write=write,
    )
    head.load_state_dict({name: tensors[name] for name in ("weight", "bias")})
    generator.heads[str(resolution)] = head.eval().to(generator.w_mean.device)


@torch.inference_mode()
def _fit(
    generator: MobileStyleGAN, index: int, head: LowResolutionHead, resolution: int, progress: Progress
) -> dict[str, Tensor]:
    """Least squares from modulated features to the wavelet bands of the area-averaged full image.

    `relative_error` tells how much of the power of those bands the fit leaves unexplained.
    """
    channels = head.weight.shape[1]
    device = generator.w_mean.device
    gram = torch.zeros(channels + 1, channels + 1, dtype=torch.float64, device=device)
    moment = torch.zeros(channels + 1, 12, dtype=torch.float64, device=device)
    power = 0.0
    next_block = cast(Block, generator.blocks[index + 1])
    random = torch.Generator().manual_seed(FIT_SEED)
    progress("low-resolution head", 0, FIT_SAMPLES, {})
    for sample in range(FIT_SAMPLES):
        ws = generator.mapping(torch.randn(1, generator.z_dim, generator=random).to(device))
        features, image = _features_with_image(generator, ws, index)
        scale = next_block.up.modulation(ws[:, head.slot])
        design = torch.cat(
            ((features * scale).flatten(2)[0], features.new_ones(1, features[0, 0].numel()))
        )  # [C + 1, P]
        bands = _haar_analysis(F.interpolate(image, size=(resolution, resolution), mode="area")).flatten(2)[0]
        gram += (design @ design.T).double()
        moment += (design @ bands.T).double()
        power += bands.square().sum().item()
        progress("low-resolution head", sample + 1, FIT_SAMPLES, {})
    ridge = RIDGE * gram.diagonal()[:-1].mean()
    regularised = gram + torch.diag(torch.cat((ridge.expand(channels), ridge.new_zeros(1))))
    solution = torch.linalg.solve(regularised, moment)  # [C + 1, 12]
    residual = power - 2 * (solution * moment).sum() + (solution * (gram @ solution)).sum()
    return {
        "weight": solution[:-1].T.float().reshape(12, channels, 1, 1).contiguous(),
        "bias": solution[-1].float().contiguous(),
        "relative_error": residual / power,
    }


def _features_with_image(generator: MobileStyleGAN, ws: Tensor, index: int) -> tuple[Tensor, Tensor]:
    features: list[Tensor] = []
    hook = generator.blocks[index].register_forward_hook(lambda module, inputs, output: features.append(output))
    try:
        image = generator.synthesis(ws).image
    finally:
        hook.remove()
    return features[0], image


def _haar_analysis(image: Tensor) -> Tensor:
    """[N, C, 2H, 2W] -> [N, 4C, H, W], the inverse of `haar` (which is orthonormal)."""
    a, b, c, d = F.pixel_unshuffle(image, 2).unflatten(1, (-1, 4)).unbind(2)
    bands = torch.stack((a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d), dim=2)
    return bands.flatten(1, 2).mul(0.5)
