"""StyleGAN2 in every published form."""

from __future__ import annotations

from collections.abc import Mapping as Values
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.generator import Rendering
from guide_fast.models.stylegan2_layers import ARCHITECTURES, NOISES, RESAMPLE_FILTER, Mapping, Synthesis

FAMILY = "stylegan2"
LARGEST = 1024  # px
# Published names of StyleGAN2-ADA -> ours; `mapping` and `synthesis` are methods of a generator.
_RENAMED = (("mapping.", "mapping_network."), ("synthesis.", "synthesis_network."), (".affine.", ".modulation."))


class StyleGAN2(nn.Module):
    """StyleGAN2 with W+: a style vector a convolution, image outputs read that of the next convolution.

    Three-channel images; skip, residual or plain architecture; class-conditional where `config["c_dim"]` is not 0.
    A conditional generator maps z with the label given, or else with its own `label` [C]. `impl` picks the kernels.
    Half precision, where the checkpoint asks for it, is used on a CUDA device only. Raises UsageError on ws, z, c of
    another shape. Source: StyleGAN2 (arXiv 1912.04958), StyleGAN2-ADA (arXiv 2006.06676).
    """

    cameras = None

    def __init__(self, config: Values[str, Any]) -> None:
        super().__init__()
        self.config: dict[str, Any] = dict(config)
        self.name: str = config["name"]
        self.z_dim, self.c_dim, self.w_dim = config["z_dim"], config["c_dim"], config["w_dim"]
        self.img_resolution: int = config["img_resolution"]
        self.impl = "auto"
        self.label: Tensor | None = None  # [C], what `mapping` uses when it is given none
        self.lineage: tuple[str, ...] = ()  # sha256 of the deltas applied, in order
        self.mapping_network = mapping_from(config)
        self.synthesis_network = synthesis_from(config, img_channels=config["img_channels"])
        self.num_ws = self.synthesis_network.num_ws
        self._slots = dict(self.synthesis_network.slots())
        self.layers = tuple(
            f"{part}.{kind}"
            for part in self._slots
            for kind in (("convolution",) if part.endswith(".skip") else ("modulation", "convolution"))
        )

    @property
    def w_mean(self) -> Tensor:
        """Mean style vector [D], as published."""
        return self.mapping_network.w_avg

    @property
    def resolutions(self) -> tuple[int, ...]:
        """What `synthesis(resolution=...)` accepts, ascending; the skip architecture has an image at every level."""
        return self.synthesis_network.resolutions

    def mapping(
        self,
        z: Tensor,  # [N, Z]
        c: Tensor | None = None,  # [N, C]
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Style vectors ws [N, L, D]; `psi` draws the first `cutoff` slots (None: all) toward `w_mean`."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"z has shape {tuple(z.shape)}; {self.name} takes [N, {self.z_dim}]")
        w = self.mapping_network(z, self._labels(z, c))
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if psi == 1:
            return ws
        drawn = self.w_mean.lerp(ws, psi)
        return drawn if cutoff is None else torch.cat((drawn[:, :cutoff], ws[:, cutoff:]), dim=1)

    def synthesis(
        self,
        ws: Tensor,  # [N, L, D]
        c: Tensor | None = None,
        *,
        noise: str = "const",
        random: torch.Generator | None = None,
        resolution: int | None = None,
    ) -> Rendering:
        """Image [N, 3, R, R] with the features before RGB, from one pass; the label has no part in it.

        `noise` is "const" (the published maps), "none", or "random" (drawn from `random`, which it needs).
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise UsageError(f"ws has shape {tuple(ws.shape)}; {self.name} takes [N, {self.num_ws}, {self.w_dim}]")
        if c is not None:
            self._check_label(c, len(ws))
        resolution = self.img_resolution if resolution is None else resolution
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"{self.name} has no {resolution} px output; it renders at {known}")
        if noise not in NOISES:
            raise UsageError(f"noise={noise!r} is not known to {self.name}; choose one of {', '.join(NOISES)}")
        if noise == "random" and random is None:
            raise UsageError("noise='random' needs random=torch.Generator(), so that an image can be made again")
        with torch.autocast(ws.device.type, enabled=False):  # the checkpoint says what is computed in half precision
            image, features = self.synthesis_network(
                ws.to(self.w_mean.dtype), noise=noise, random=random, resolution=resolution, impl=self.impl
            )
        return Rendering(image, features.float() if features.dtype == torch.float16 else features)

    def seen_layers(self, resolution: int) -> tuple[str, ...]:
        """The layers on which an image of `resolution` px depends; raises UsageError where there is no such image."""
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"ltu.resolution = {resolution} is no output of {self.name}; choose one of {known}")
        return tuple(layer for layer in self.layers if int(layer.split(".")[0][1:]) <= resolution)

    def slot(self, layer: str) -> int:
        """Index of the style vector that `layer` reads."""
        return self._slots[self._part(layer)]

    def layer_module(self, layer: str) -> nn.Module:
        """The module that holds the layer's parameters; its `modulation` makes the layer's style."""
        return self.synthesis_network.get_submodule(self._part(layer))

    def layer_parameters(self, layer: str) -> dict[str, nn.Parameter]:
        """Full parameter name -> parameter of one entry of `layers`."""
        part, kind = self._part(layer), layer.rsplit(".", 1)[1]
        return {
            f"synthesis_network.{part}.{name}": parameter
            for name, parameter in self.layer_module(layer).named_parameters()
            if name.startswith("modulation.") == (kind == "modulation")
        }

    @classmethod
    def from_tensors(cls, tensors: Values[str, Tensor], config: Values[str, Any]) -> StyleGAN2:
        """Build from tensors under StyleGAN2-ADA's names, or under those of `state_dict`.

        Raises IntegrityError when names or shapes do not fit `config`, UsageError for what no published StyleGAN2 has
        (another activation or resampling filter, another number of image channels).
        """
        if config["img_channels"] != 3:
            raise UsageError(f"{config['name']} makes images of {config['img_channels']} channels; give one of RGB")
        generator = cls(config)
        load_published(generator, tensors, config["name"])
        return generator.eval().requires_grad_(False)

    def _labels(self, z: Tensor, c: Tensor | None) -> Tensor | None:
        """Labels [N, C] of a conditional generator."""
        if c is not None:
            self._check_label(c, len(z))
            return c.to(z)
        if not self.c_dim:
            return None
        if self.label is None:
            raise UsageError(
                f"{self.name} is conditional on a label of {self.c_dim} numbers; give c [N, {self.c_dim}], or load it "
                f"with label= (--label) from 0 to {self.c_dim - 1}"
            )
        return self.label.to(z).expand(len(z), -1)

    def _check_label(self, c: Tensor, count: int) -> None:
        if not self.c_dim:
            raise UsageError(f"{self.name} takes no conditioning label; leave c out")
        if c.shape != (count, self.c_dim):
            raise UsageError(f"c has shape {tuple(c.shape)}; {self.name} takes [{count}, {self.c_dim}]")

    def _part(self, layer: str) -> str:
        if layer not in self.layers:
            raise UsageError(f"{self.name} has no layer {layer!r}; `guide-fast doctor --layers` lists all of them")
        return layer.rsplit(".", 1)[0]


def mapping_from(config: Values[str, Any]) -> Mapping:
    """The mapping network that a published config describes, without weights; raises UsageError as `from_tensors`."""
    options = config["mapping"]
    _check_activation(config, options.get("activation", "lrelu"))
    return Mapping(
        z_dim=config["z_dim"],
        c_dim=config["c_dim"],
        w_dim=config["w_dim"],
        num_layers=options["num_layers"],
        embed_features=options.get("embed_features"),
        layer_features=options.get("layer_features"),
        lr_multiplier=options["lr_multiplier"],
    )


def synthesis_from(config: Values[str, Any], *, img_channels: int) -> Synthesis:
    """The synthesis network that a published config describes, without weights; raises UsageError as `from_tensors`."""
    name, size = config["name"], config["img_resolution"]
    _check_activation(config, config.get("activation", "lrelu"))
    if config["architecture"] not in ARCHITECTURES:
        raise UsageError(f"architecture {config['architecture']!r} of {name} is not one of {', '.join(ARCHITECTURES)}")
    if not 8 <= size <= LARGEST or size & (size - 1):
        raise UsageError(f"{name} makes images of {size} px; StyleGAN2 makes a power of two from 8 to {LARGEST}")
    if tuple(config.get("resample_filter", RESAMPLE_FILTER)) != RESAMPLE_FILTER:
        raise UsageError(f"{name} resamples with {config['resample_filter']}; StyleGAN2 does with [1, 3, 3, 1]")
    return Synthesis(
        w_dim=config["w_dim"],
        img_resolution=size,
        img_channels=img_channels,
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        num_fp16_res=config["num_fp16_res"],
        conv_clamp=config["conv_clamp"],
        architecture=config["architecture"],
        use_noise=config.get("use_noise", True),
    )


def load_published(module: nn.Module, tensors: Values[str, Tensor], name: str) -> None:
    """Load tensors under published names, or under the module's own; raises IntegrityError when they do not fit.

    Published files repeat the resampling filter in every layer: the config has it, so those are left out.
    """
    own: dict[str, Tensor] = {}
    for published, tensor in tensors.items():
        if published.endswith(".resample_filter"):
            continue
        for theirs, ours in _RENAMED:
            at_start = not theirs.startswith(".")
            if at_start and published.startswith(theirs):
                published = ours + published.removeprefix(theirs)
            elif not at_start:
                published = published.replace(theirs, ours)
        own[published] = tensor
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise IntegrityError(f"the weights do not fit {name}: {str(error).splitlines()[-1].strip()}") from None


def _check_activation(config: Values[str, Any], activation: str) -> None:
    if activation != "lrelu":
        raise UsageError(f"{config['name']} uses the activation {activation!r}; StyleGAN2 uses 'lrelu'")
