"""GUIDE's loop as it was published, with everything that makes it slow.

Batch 1 for every pair; the compared features come from a pass of their own, so that each local or adjacency pair costs
two student passes beside two teacher passes (8 + 8 a step); the identity network computes gradients of its weights,
which nobody reads; fresh noise for every pass where the generator has noise; student, teacher in train mode; a host
sync for each term; the generator's own resolution; plain eager PyTorch, NCHW.
In the baseline's favour, against the published code: gradients are accumulated pair by pair (the same sum in less
memory), the perceptual network sees 256 px, demodulation is the formula without an [N, O, I, 3, 3] tensor, freed memory
stays in the process where the library asked for that.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from guide_fast.bench.baselines.guide_method import Draw, Method, as_reference, draw, train_all_layers, ufo_target
from guide_fast.kernels import _dispatch
from guide_fast.ltu import Networks
from guide_fast.models.generator import Generator, Rendering
from guide_fast.randomness import stream


class GuidePublished:
    """One person at a time: `begin`, then `step` as often as wanted; `student` is the generator so far."""

    name = "guide_published"
    compile_seconds = 0.0

    def __init__(self, base: Generator, networks: Networks, method: Method | None = None) -> None:
        self.method = method or Method()
        self._base: Any = base
        self._perceptual = networks.perceptual
        self._identity = copy.deepcopy(networks.identity).requires_grad_(True)  # never frozen, as published
        self._random_noise = "random" in inspect.signature(self._base.synthesis).parameters

    def begin(self, w_u: Tensor, seed: int) -> None:
        """Start anew for the person at `w_u` [L, D]."""
        self._w_u, self._seed, self._index = w_u, seed, 0
        self._w_t = ufo_target(self._base, w_u, self.method.d)
        self._teacher = as_reference(copy.deepcopy(self._base)).requires_grad_(False).train()
        self.student: Any = as_reference(copy.deepcopy(self._base)).train()
        self._optimizer = torch.optim.Adam(train_all_layers(self.student), lr=self.method.lr)

    def step(self) -> dict[str, float]:
        """One step; its terms, each summed over its pairs."""
        with _dispatch.plain_pytorch():
            return self._step(draw(self._base, self._w_u, self.method, self._seed, self._index))

    def _step(self, drawn: Draw) -> dict[str, float]:
        self._noise = stream("guide noise", self._seed, self._index)
        self._optimizer.zero_grad(set_to_none=True)
        self._identity.zero_grad(set_to_none=True)
        terms = {"local": self._learn(self._reconstruction(self._w_u, self._w_t, drawn.camera)), "adjacency": 0.0}
        for offset in drawn.offsets:
            pair = self._reconstruction(self._w_u + offset, self._w_t + offset, drawn.camera)
            terms["adjacency"] += self._learn(pair)
        terms["global"] = sum(self._learn(self._preservation(w, drawn.camera)) for w in drawn.others)
        self._optimizer.step()
        self._index += 1
        return terms | {"loss": terms["local"] + terms["adjacency"] + terms["global"]}

    @staticmethod
    def _learn(loss: Tensor) -> float:
        loss.backward()
        return loss.item()

    def _reconstruction(self, w: Tensor, wanted: Tensor, camera: Tensor | None) -> Tensor:
        """The local term, or one pair of the adjacency term; `w`, `wanted` [L, D]."""
        method = self.method
        features = self._render(self.student, w, camera).compared
        wanted_features = self._render(self._teacher, wanted, camera).compared
        image = self._render(self.student, w, camera).framed
        wanted_image = self._render(self._teacher, wanted, camera).framed
        identity = self._identity
        similarity = identity.similarity(identity.embed(image), identity.embed(wanted_image))
        return (
            method.feature * (features - wanted_features).square().mean()
            + method.perceptual * self._perceptual_distance(image, wanted_image)
            + method.identity * (1 - similarity).sum()
        )

    def _preservation(self, w: Tensor, camera: Tensor | None) -> Tensor:
        """One pair of the global term."""
        image, wanted = (self._render(generator, w, camera).framed for generator in (self.student, self._teacher))
        return self.method.perceptual * self._perceptual_distance(image, wanted)

    def _perceptual_distance(self, image: Tensor, wanted: Tensor) -> Tensor:
        size = self.method.perceptual_size
        taps = (self._perceptual.features(picture, size=size) for picture in (image, wanted))
        return self._perceptual.distance(*taps).sum()

    def _render(self, generator: Any, w: Tensor, camera: Tensor | None) -> Rendering:
        noise = {"noise": "random", "random": self._noise} if self._random_noise else {}
        return generator.synthesis(w[None], camera, resolution=self.method.resolution, **noise)
