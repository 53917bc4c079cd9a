"""GUIDE's method, well engineered in stock PyTorch: what a good engineer has without writing a kernel.

The published method unchanged (its target, losses, layers, learning rate, full resolution), but: one student pass for
all pairs, one teacher pass without gradients for what changes from step to step, the fixed target's features cached,
every network frozen, channels_last, `torch.compile` of student forward with loss (so its backward), of the teacher,
fused Adam, autocast to bfloat16 on a GPU (CPUs here have no hardware for it). No kernel of this library is used.
What is ours to invent stays ours: small images from a fitted head, the closed-form start, the choice of layers, the
bank, other targets. `Method(resolution=..., lr=...)` gives variants.
"""

from __future__ import annotations

import contextlib
import copy
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guide_fast.bench.baselines.guide_method import Draw, Method, as_reference, draw, train_all_layers, ufo_target
from guide_fast.kernels import _dispatch
from guide_fast.ltu import Networks
from guide_fast.models.generator import Generator

SAME = 1e-3  # relative difference of the loss to the same step uncompiled, above which nothing is timed


class Seen(NamedTuple):
    """What the losses take of N images."""

    features: Tensor  # [N, C, H, W]
    identity: Tensor  # [N, E]
    taps: tuple[Tensor, ...]  # each [N, C, h, w]

    def join(self, other: Seen) -> Seen:
        """Along N."""
        taps = tuple(torch.cat(pair) for pair in zip(self.taps, other.taps, strict=True))
        return Seen(torch.cat((self.features, other.features)), torch.cat((self.identity, other.identity)), taps)


class GuideCompiled:
    """As `GuidePublished`; compiles on construction, which `compile_seconds` tells, and is checked there.

    Raises RuntimeError when the compiled step computes another loss than the uncompiled one.
    """

    name = "guide_compiled"

    def __init__(
        self,
        base: Generator,
        networks: Networks,
        method: Method | None = None,
        *,
        compiled: bool = True,
        backend: str = "inductor",
    ) -> None:
        self.method = method or Method()
        self._base: Any = base
        self._identity, self._perceptual = networks.identity, networks.perceptual
        self._teacher = as_reference(copy.deepcopy(self._base)).requires_grad_(False).eval()
        self.student: Any = as_reference(copy.deepcopy(self._base)).eval()
        for generator in (self._teacher, self.student):
            generator.to(memory_format=torch.channels_last)
        self._trained = train_all_layers(self.student)
        self._fresh = [parameter.detach().clone() for parameter in self._trained]
        self._device = self._base.w_mean.device
        self._look, self._lose = self._observe, self._loss
        self.compile_seconds = 0.0
        if compiled:
            self._compile(backend)

    def begin(self, w_u: Tensor, seed: int) -> None:
        """Start anew for the person at `w_u` [L, D]; the compiled code stays."""
        self._w_u, self._seed, self._index = w_u, seed, 0
        self._w_t = ufo_target(self._base, w_u, self.method.d)
        with torch.no_grad():
            for parameter, fresh in zip(self._trained, self._fresh, strict=True):
                parameter.copy_(fresh)
        self._optimizer = torch.optim.Adam(self._trained, lr=self.method.lr, fused=True)
        self._fixed: Seen | None = None
        if self._base.cameras is None:  # else every step sees the target from another camera
            with _dispatch.plain_pytorch(), torch.no_grad(), self._precision():
                self._fixed = self._observe(self._teacher, self._w_t[None], None)

    def step(self) -> dict[str, float]:
        """One step; its loss is read once, at the end."""
        with _dispatch.plain_pytorch():
            loss = self._forward(draw(self._base, self._w_u, self.method, self._seed, self._index))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        self._index += 1
        return {"loss": loss.item()}

    def _forward(self, drawn: Draw) -> Tensor:
        moved = self._w_t + drawn.offsets
        with self._precision():
            with torch.no_grad():
                if self._fixed is None:
                    ws = torch.cat((self._w_t[None], moved, drawn.others))
                    wanted = self._look(self._teacher, ws, drawn.camera)
                else:
                    wanted = self._fixed.join(self._look(self._teacher, torch.cat((moved, drawn.others)), None))
            ws = torch.cat((self._w_u[None], self._w_u + drawn.offsets, drawn.others))
            return self._lose(ws, drawn.camera, wanted)

    def _observe(self, generator: Any, ws: Tensor, camera: Tensor | None) -> Seen:
        rendering = generator.synthesis(ws, camera, resolution=self.method.resolution)
        taps = self._perceptual.features(rendering.framed, size=self.method.perceptual_size)
        return Seen(rendering.compared, self._identity.embed(rendering.framed), tuple(taps))

    def _loss(self, ws: Tensor, camera: Tensor | None, wanted: Seen) -> Tensor:
        """All three terms; the first 1 + A rows are reconstructed, the others preserved."""
        method, near = self.method, 1 + self.method.n_adjacent
        seen = self._observe(self.student, ws, camera)
        features = (seen.features[:near] - wanted.features[:near]).square().mean(dim=(1, 2, 3)).sum()
        similarity = self._identity.similarity(seen.identity[:near], wanted.identity[:near])
        distance = self._perceptual.distance(seen.taps, wanted.taps).sum()
        return method.feature * features + method.perceptual * distance + method.identity * (1 - similarity).sum()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _compile(self, backend: str) -> None:
        """Compile, then check the first loss against the uncompiled one; the weights are fresh again afterwards."""
        start = time.perf_counter()
        w = self._base.mapping(torch.randn(1, self._base.z_dim, generator=torch.Generator().manual_seed(0)))[0]
        self.begin(w.detach(), 0)
        with _dispatch.plain_pytorch(), torch.no_grad():
            plain = self._forward(draw(self._base, self._w_u, self.method, 0, 0)).item()
        torch.compiler.reset()
        self._look = torch.compile(self._observe, dynamic=False, backend=backend)
        self._lose = torch.compile(self._loss, dynamic=False, backend=backend)
        compiled = self.step()["loss"]
        self.step()  # with Adam's moments there
        self.compile_seconds = time.perf_counter() - start
        if not abs(compiled - plain) <= SAME * abs(plain):
            raise RuntimeError(
                f"the compiled step's loss is {compiled}, uncompiled it is {plain}: not the same method, so not timed"
            )
