"""The three loss terms of latent target unlearning, on batches of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_fast.config import LtuConfig
from guide_fast.models.generator import Rendering
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork

ROLES = ("local", "adjacency", "global")
KINDS = ("features", "perceptual", "identity")
PERCEPTUAL_SIZE = 128  # px; at 256 px the perceptual network costs more than the generator's small image


@dataclass(frozen=True)
class Networks:
    """The frozen networks of the loss; the judge is never among them."""

    identity: IdentityNetwork
    perceptual: PerceptualNetwork

    @property
    def names(self) -> dict[str, str]:
        """For headers of cached features."""
        return {"identity": self.identity.name, "perceptual": self.perceptual.name}

    def to(self, device: torch.device) -> Networks:
        """The same networks, moved in place."""
        return Networks(self.identity.to(device), self.perceptual.to(device))


@dataclass(frozen=True)
class Seeing:
    """How the frozen networks look, on a GPU: which of them in float16, the identity network on which stream."""

    half: frozenset[str] = frozenset()  # "identity", "perceptual"
    identity_stream: torch.cuda.Stream | None = None


AS_EVER = Seeing()


@dataclass(frozen=True)
class Views:
    """What the loss sees of N images."""

    identity: Tensor  # [N, E]
    taps: tuple[Tensor, ...]  # perceptual features, each [N, C, H, W]
    features: Tensor | None = None  # the generator's own features, [N, C, H, W]

    def __getitem__(self, index: slice | Tensor) -> Views:
        features = None if self.features is None else self.features[index]
        return Views(self.identity[index], tuple(tap[index] for tap in self.taps), features)

    @staticmethod
    def concatenate(parts: Sequence[Views]) -> Views:
        """Along N; generator features are kept only where every part has them."""
        features = [part.features for part in parts if part.features is not None]
        return Views(
            torch.cat([part.identity for part in parts]),
            tuple(torch.cat(taps) for taps in zip(*(part.taps for part in parts), strict=True)),
            torch.cat(features) if len(features) == len(parts) else None,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; generator features are not stored."""
        return {"identity": self.identity} | {f"tap{i}": tap for i, tap in enumerate(self.taps)}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Views:
        """The inverse of `to_tensors`."""
        return Views(tensors["identity"], tuple(tensors[f"tap{i}"] for i in range(len(tensors) - 1)))


def observe(
    rendering: Rendering,
    networks: Networks,
    *,
    keep_features: bool = True,
    seeing: Seeing = AS_EVER,
) -> Views:
    """Embed a rendering with the frozen networks, once for all terms."""
    framed = rendering.framed
    stream = seeing.identity_stream
    if stream is None:
        identity = _seen("identity", lambda: networks.identity.embed(framed), framed, seeing)
        taps = _seen("perceptual", lambda: networks.perceptual.features(framed, size=PERCEPTUAL_SIZE), framed, seeing)
    else:
        here = torch.cuda.current_stream(framed.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            identity = _seen("identity", lambda: networks.identity.embed(framed), framed, seeing)
        taps = _seen("perceptual", lambda: networks.perceptual.features(framed, size=PERCEPTUAL_SIZE), framed, seeing)
        here.wait_stream(stream)
        framed.record_stream(stream)  # the allocator must not hand out the image while the other stream reads it
        identity.record_stream(here)
    return Views(identity, tuple(taps), rendering.compared if keep_features else None)


def reconstruction_parts(
    student: Views,
    teacher: Views,
    networks: Networks,
    config: LtuConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted losses [N] of the pairs of the local and adjacency terms, in the order of KINDS.

    The paper's F are tri-planes; for a 2D generator they are the last synthesis features before RGB. The paper's
    identity term is 1 - cos of ArcFace; dlib's embeddings are compared by distance, for which `similarity` is linear.
    """
    assert student.features is not None and teacher.features is not None
    feature = (student.features - teacher.features).square().mean(dim=(1, 2, 3))
    return config.feature * feature, *_seen_parts(student, teacher, networks, config)


def preservation_parts(
    student: Views,
    teacher: Views,
    networks: Networks,
    config: LtuConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted losses [N] of the pairs of the global term, in the order of KINDS; features have no part in it.

    The paper has the perceptual distance alone; ours adds the identity term, since identity is what bystanders lose.
    """
    perceptual, identity = _seen_parts(student, teacher, networks, config)
    return torch.zeros_like(identity), perceptual, identity


def reconstruction(student: Views, teacher: Views, networks: Networks, config: LtuConfig) -> Tensor:
    """Loss [N] of each pair of the local and adjacency terms."""
    feature, perceptual, identity = reconstruction_parts(student, teacher, networks, config)
    return feature + perceptual + identity


def preservation(student: Views, teacher: Views, networks: Networks, config: LtuConfig) -> Tensor:
    """Loss [N] of each pair of the global term."""
    _, perceptual, identity = preservation_parts(student, teacher, networks, config)
    return perceptual + identity


def adjacency_offsets(
    w_u: Tensor,  # [L, D]
    w_r: Tensor,  # [N, L, D], mapped random latents
    distance: Tensor,  # [N], per slot, in (0, radius)
) -> Tensor:
    """Offsets D [N, L, D] from the person toward random people, of length `distance` per slot.

    Source: GUIDE section 3; the norm over the flattened tensor is sqrt(L) times the length per slot.
    """
    direction = w_r - w_u
    lengths = direction.flatten(1).norm(dim=1) / direction.shape[1] ** 0.5
    # a random person who is the person has no direction: they stay where they are
    return direction * (distance / lengths.clamp_min(1e-6))[:, None, None]


def _seen(name: str, look: Callable[[], Any], images: Tensor, seeing: Seeing) -> Any:
    """What a network says, in float32 whatever it computed in."""
    if name not in seeing.half:
        return look()
    with torch.autocast(images.device.type, dtype=torch.float16):
        found = look()
    return found.float() if isinstance(found, Tensor) else [tap.float() for tap in found]


def _seen_parts(student: Views, teacher: Views, networks: Networks, config: LtuConfig) -> tuple[Tensor, Tensor]:
    perceptual = config.perceptual * networks.perceptual.distance(student.taps, teacher.taps)
    return perceptual, config.identity * (1 - networks.identity.similarity(student.identity, teacher.identity))
