"""Linear heads that turn an earlier block's features into a small image, so that a step is cheap on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.artifacts import read_safetensors, weights_sha256, write_safetensors
from guide_fast.errors import GuideFastError, UsageError
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


def low_resolutions(generator: MobileStyleGAN) -> tuple[int, ...]:
    """Resolutions for which a head can be fitted, ascending."""
    return tuple(16 << i for i in range(len(generator.blocks) - 1))


def attach_head(
    generator: MobileStyleGAN,
    resolution: int,
    *,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Give `generator` an image output at `resolution`, from the cache or fitted now (ridge regression).

    Call it on the base generator: the head belongs to those weights and is shared by every delta.
    Raises UsageError for a resolution that no block has.
    """
    if resolution not in low_resolutions(generator):
        known = ", ".join(map(str, low_resolutions(generator)))
        raise UsageError(f"{generator.name} has no block for {resolution} px; choose one of {known}")
    index = low_resolutions(generator).index(resolution)
    block = cast(Block, generator.blocks[index])
    head = LowResolutionHead(block.conv2.bias.numel(), 1 + SLOTS_PER_BLOCK * (index + 1))
    base = weights_sha256(generator)
    path = cache_dir / f"head-{resolution}-{base[:16]}.safetensors" if cache_dir else None
    if path is not None and path.is_file():
        tensors, metadata = read_safetensors(path, "low-resolution head")
        if metadata["base_sha256"] != base:
            raise GuideFastError(f"{path} belongs to other weights; delete it and run again")
    else:
        tensors, error = _fit(generator, index, head, resolution, progress)
        if path is not None:
            metadata = {"base_sha256": base, "samples": FIT_SAMPLES, "relative_error": error}
            write_safetensors(path, tensors, "low-resolution head", metadata)
    head.load_state_dict(tensors)
    generator.heads[str(resolution)] = head.eval()


@torch.inference_mode()
def _fit(
    generator: MobileStyleGAN, index: int, head: LowResolutionHead, resolution: int, progress: Progress
) -> tuple[dict[str, Tensor], float]:
    """Least squares from modulated features to the wavelet bands of the area-averaged full image."""
    channels = head.weight.shape[1]
    gram = torch.zeros(channels + 1, channels + 1, dtype=torch.float64)
    moment = torch.zeros(channels + 1, 12, dtype=torch.float64)
    power = 0.0
    next_block = cast(Block, generator.blocks[index + 1])
    random = torch.Generator().manual_seed(FIT_SEED)
    progress("low-resolution head", 0, FIT_SAMPLES, {})
    for sample in range(FIT_SAMPLES):
        ws = generator.mapping(torch.randn(1, generator.z_dim, generator=random))
        features, image = _features_with_image(generator, ws, index)
        scale = next_block.up.modulation(ws[:, head.slot])
        design = torch.cat(((features * scale).flatten(2)[0], torch.ones(1, features[0, 0].numel())))  # [C + 1, P]
        bands = _haar_analysis(F.interpolate(image, size=(resolution, resolution), mode="area")).flatten(2)[0]
        gram += (design @ design.T).double()
        moment += (design @ bands.T).double()
        power += bands.square().sum().item()
        progress("low-resolution head", sample + 1, FIT_SAMPLES, {})
    ridge = RIDGE * gram.diagonal()[:-1].mean()
    regularised = gram + torch.diag(torch.cat((ridge.expand(channels), torch.zeros(1))))
    solution = torch.linalg.solve(regularised, moment)  # [C + 1, 12]
    residual = power - 2 * (solution * moment).sum() + (solution * (gram @ solution)).sum()
    tensors = {
        "weight": solution[:-1].T.float().reshape(12, channels, 1, 1).contiguous(),
        "bias": solution[-1].float().contiguous(),
    }
    return tensors, float(residual / power)


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
