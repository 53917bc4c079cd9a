"""EG3D: tri-planes from a StyleGAN2 backbone, rendered from a camera, enlarged by super-resolution."""

from __future__ import annotations

from collections.abc import Mapping as Values
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.errors import UsageError
from guide_fast.models.cameras import LABEL, Cameras
from guide_fast.models.generator import Rendering
from guide_fast.models.stylegan2 import load_published, mapping_from, synthesis_from
from guide_fast.models.stylegan2_layers import NOISES, Mapping, Synthesis
from guide_fast.models.super_resolution import SuperResolution
from guide_fast.models.volume_rendering import Decoder, VolumeRenderer

FAMILY = "eg3d"
SMALLEST = 32  # px of a raw image that still shows a face


class Backbone(nn.Module):
    """The StyleGAN2 that makes planes, under the published names of its two networks."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis


class EG3D(nn.Module):
    """EG3D with W+: 14 style vectors for planes of 256 px; camera labels [25] as `cameras` makes them.

    Without a label latents are mapped for `cameras.conditioning`, images taken from `cameras.frontal`. What may be
    updated is the backbone's synthesis network, as GUIDE does; mapping, decoder, super-resolution stay. `impl` picks
    the kernels. Half precision, where the checkpoint asks for it, is used on a CUDA device only. Raises UsageError on
    ws, z, c of another shape. Source: EG3D (arXiv 2112.07945); the published code's semantics, its axes included.
    """

    def __init__(self, config: Values[str, Any]) -> None:
        super().__init__()
        self.config: dict[str, Any] = dict(config)
        self.name: str = config["name"]
        self.z_dim, self.c_dim, self.w_dim = config["z_dim"], config["c_dim"], config["w_dim"]
        self.img_resolution: int = config["img_resolution"]
        self.neural_rendering_resolution: int = config["neural_rendering_resolution"]
        rendering, decoder, enlarging = config["rendering"], config["decoder"], config["super_resolution"]
        backbone = {**config["backbone"], "name": self.name}
        if self.c_dim != LABEL:
            raise UsageError(f"{self.name} takes labels of {self.c_dim} numbers; a camera has {LABEL}")
        self.impl = "auto"
        self.lineage: tuple[str, ...] = ()  # sha256 of the deltas applied, in order
        self.cameras = Cameras.from_rendering(rendering)
        self.renderer = VolumeRenderer.from_rendering(self.name, rendering)
        # as published, a checkpoint that does not say is not conditioned
        self.c_scale = 0.0 if rendering.get("c_gen_conditioning_zero") else float(rendering.get("c_scale", 0.0))
        self.backbone = Backbone(mapping_from(backbone), synthesis_from(backbone, img_channels=3 * decoder["features"]))
        self.decoder = Decoder(
            decoder["features"], decoder["hidden"], decoder["outputs"], lr_multiplier=decoder["lr_multiplier"]
        )
        self.superresolution = SuperResolution(
            enlarging["kind"],
            channels=enlarging["channels"],
            w_dim=self.w_dim,
            img_resolution=enlarging["img_resolution"],
            half=enlarging["sr_num_fp16_res"] > 0,
            antialias=enlarging["sr_antialias"],
            noise=enlarging["noise_mode"],
        )
        self.num_ws: int = self.backbone.synthesis.num_ws
        self._slots = dict(self.backbone.synthesis.slots())
        self.layers = tuple(
            f"{part}.{kind}"
            for part in self._slots
            for kind in (("convolution",) if part.endswith(".skip") else ("modulation", "convolution"))
        )

    @property
    def w_mean(self) -> Tensor:
        """Mean style vector [D] over latents with cameras, as published."""
        return self.backbone.mapping.w_avg

    @property
    def resolutions(self) -> tuple[int, ...]:
        """What `synthesis(resolution=...)` accepts, ascending: raw renderings up to the checkpoint's own, then the
        enlarged image."""
        raw, size = [self.neural_rendering_resolution], self.neural_rendering_resolution // 2
        while size >= SMALLEST:
            raw.insert(0, size)
            size //= 2
        return (*(size for size in raw if size < self.img_resolution), self.img_resolution)

    def mapping(
        self,
        z: Tensor,  # [N, Z]
        c: Tensor | None = None,  # [N, 25] or [25]
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Style vectors ws [N, L, D]; `psi` draws the first `cutoff` slots (None: all) toward `w_mean`."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"z has shape {tuple(z.shape)}; {self.name} takes [N, {self.z_dim}]")
        label = self._labels(self.cameras.conditioning if c is None else c, len(z)).to(z)
        ws = self.backbone.mapping(z, label * self.c_scale)[:, None].expand(-1, self.num_ws, -1)
        if psi == 1:
            return ws
        drawn = self.w_mean.lerp(ws, psi)
        return drawn if cutoff is None else torch.cat((drawn[:, :cutoff], ws[:, cutoff:]), dim=1)

    def synthesis(
        self,
        ws: Tensor,  # [N, L, D]
        c: Tensor | None = None,  # [N, 25] or [25]
        *,
        noise: str = "const",
        random: torch.Generator | None = None,
        resolution: int | None = None,
        neural_rendering_resolution: int | None = None,
    ) -> Rendering:
        """Image [N, 3, R, R] as the camera `c` sees it, with planes, raw image, depth of the same pass.

        `features` are the rendered ones [N, 32, r, r], whose first three channels are `image_raw`. A `resolution` below
        the native one makes the raw image of that size the image. `neural_rendering_resolution` is r when the image is
        the enlarged one (default: the checkpoint's). `noise` is the backbone's: "const", "none", or "random", which
        needs `random`. Where `random` is given, the samples along rays are drawn from it, too.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise UsageError(f"ws has shape {tuple(ws.shape)}; {self.name} takes [N, {self.num_ws}, {self.w_dim}]")
        if noise not in NOISES:
            raise UsageError(f"noise={noise!r} is not known to {self.name}; choose one of {', '.join(NOISES)}")
        if noise == "random" and random is None:
            raise UsageError("noise='random' needs random=torch.Generator(), so that an image can be made again")
        resolution = self.img_resolution if resolution is None else resolution
        self._check_resolution(resolution)
        enlarged = resolution == self.img_resolution
        size = (neural_rendering_resolution or self.neural_rendering_resolution) if enlarged else resolution
        if size < 1 or (not enlarged and neural_rendering_resolution not in (None, size)):
            raise UsageError(f"neural_rendering_resolution={neural_rendering_resolution} does not make {resolution} px")
        label = self._labels(self.cameras.frontal if c is None else c, len(ws))
        # the checkpoint says what is computed in half precision
        with torch.autocast(ws.device.type, enabled=False):
            ws = ws.to(self.w_mean.dtype)
            planes, _ = self.backbone.synthesis(ws, noise=noise, random=random, impl=self.impl)
            features, depth = self.renderer.render(
                planes.unflatten(1, (3, -1)), self.decoder, label.to(ws), size, random=random, impl=self.impl
            )
            raw = features[:, :3]
            image = self.superresolution(features, ws, random=random, impl=self.impl) if enlarged else raw
        return Rendering(image, features, planes, raw, depth)

    def seen_layers(self, resolution: int) -> tuple[str, ...]:
        """The layers on which an image of `resolution` px depends: all, since every image is rendered from planes.

        Raises UsageError where there is no such image.
        """
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"ltu.resolution = {resolution} is no output of {self.name}; choose one of {known}")
        return self.layers

    def slot(self, layer: str) -> int:
        """Index of the style vector that `layer` reads."""
        return self._slots[self._part(layer)]

    def layer_module(self, layer: str) -> nn.Module:
        """The module that holds the layer's parameters; its `modulation` makes the layer's style."""
        return self.backbone.synthesis.get_submodule(self._part(layer))

    def layer_parameters(self, layer: str) -> dict[str, nn.Parameter]:
        """Full parameter name -> parameter of one entry of `layers`."""
        part, kind = self._part(layer), layer.rsplit(".", 1)[1]
        return {
            f"backbone.synthesis.{part}.{name}": parameter
            for name, parameter in self.layer_module(layer).named_parameters()
            if name.startswith("modulation.") == (kind == "modulation")
        }

    @classmethod
    def from_tensors(cls, tensors: Values[str, Tensor], config: Values[str, Any]) -> EG3D:
        """Build from tensors under the published names, or under those of `state_dict`.

        Raises IntegrityError when names or shapes do not fit `config`, UsageError for what no published EG3D has.
        """
        generator = cls(config)
        load_published(generator, tensors, config["name"])
        return generator.eval().requires_grad_(False)

    def _labels(self, c: Tensor, count: int) -> Tensor:
        if c.shape not in ((count, LABEL), (1, LABEL), (LABEL,)):
            raise UsageError(f"c has shape {tuple(c.shape)}; {self.name} takes camera labels [{count}, {LABEL}]")
        return c.expand(count, LABEL)

    def _check_resolution(self, resolution: int) -> None:
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"{self.name} has no {resolution} px output; it renders at {known}")

    def _part(self, layer: str) -> str:
        if layer not in self.layers:
            raise UsageError(f"{self.name} has no layer {layer!r}; `guide-fast doctor --layers` lists all of them")
        return layer.rsplit(".", 1)[0]
