"""Training of the small encoder on faces that its generator makes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guide_fast.config import EncoderConfig
from guide_fast.errors import DivergedError, UsageError
from guide_fast.invert.bank import sampled_ws, spread
from guide_fast.invert.encoder_samples import Samples, encoder_samples
from guide_fast.models.encoders.encoder import family_of
from guide_fast.models.encoders.small import Head
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream

KIND = "encoder"
SPREAD_SAMPLES = 1024  # latents behind W's standard deviation
RISE = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Trained:
    """What `SmallEncoder` is made of, with how well it does."""

    tensors: dict[str, Tensor]
    config: dict[str, object]
    error: float  # mean squared error of the held-out codes relative to that of the mean face


def train_encoder(
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    config: EncoderConfig,
    progress: Progress = silent,
) -> Trained:
    """The small encoder of `generator`: least squares from what the networks see of a face to its code in W+.

    AdamW with a learning rate that rises, then falls to 0 along half a cosine. The same seed on the same device gives
    the same weights. Raises UsageError when nothing is left to train on, DivergedError when the loss is not finite.
    """
    if config.held_out >= config.samples:
        raise UsageError(
            f"encoder.held_out = {config.held_out} leaves nothing of encoder.samples = {config.samples} to train on; "
            "lower the one or raise the other"
        )
    scale = spread(sampled_ws(generator, SPREAD_SAMPLES, config.seed)[:, 0], generator.w_mean)
    samples = encoder_samples(
        generator,
        identity=identity,
        perceptual=perceptual,
        count=config.samples,
        scale=scale,
        seed=config.seed,
        progress=progress,
    )
    channels = tuple(x.shape[1] for x in samples.maps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream("encoder head", config.seed).initial_seed())  # of the weights, of dropout
        head = Head(channels=channels, dimension=identity.dimension, num_ws=generator.num_ws, w_dim=generator.w_dim).to(
            generator.w_mean.device
        )
        error = _fit(head, samples, config, progress)
    settings: dict[str, object] = {
        "family": family_of(generator),
        "num_ws": generator.num_ws,
        "w_dim": generator.w_dim,
        "scale": scale,
        "channels": list(channels),
    }
    tensors = {name: value.detach().cpu() for name, value in head.state_dict().items()}
    return Trained(tensors, settings, error)


def _fit(head: Head, samples: Samples, config: EncoderConfig, progress: Progress) -> float:
    """Train `head` in place; returns its relative error on the samples held out, the last ones."""
    known = len(samples) - config.held_out
    batch = min(config.batch, known)
    steps = config.epochs * (known // batch)
    nn.init.normal_(head.directions, std=0.01)
    head.dropout.p = config.dropout
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate((step + 1) / steps))
    order = stream("encoder order", config.seed)
    step = 0
    progress(KIND, 0, steps, {})
    head.train()
    for _ in range(config.epochs):
        for rows in torch.randperm(known, generator=order)[: known // batch * batch].split(batch):
            loss = _error(head, samples, rows)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            step += 1
            if step % 20 == 0 or step == steps:
                value = loss.item()
                if not math.isfinite(value):
                    raise DivergedError(
                        f"the encoder's loss is {value} after {step} steps; lower encoder.lr ({config.lr})"
                    )
                progress(KIND, step, steps, {"loss": value})
    head.eval()
    with torch.inference_mode():
        rows = torch.arange(known, len(samples))
        parts = [(_error(head, samples, part).item(), len(part)) for part in rows.split(batch)]
        power = samples.codes[rows].float().square().mean().item()
    return sum(error * size for error, size in parts) / config.held_out / power


def _error(head: Head, samples: Samples, rows: Tensor) -> Tensor:
    device = head.directions.device
    maps = [x[rows].to(device).float() for x in samples.maps]
    code = head(maps, samples.embeddings[rows].to(device))
    error: Tensor = (code - samples.codes[rows].to(device).float()).square().mean()
    return error


def _rate(done: float) -> float:
    """Learning rate factor for the share of the steps that is done."""
    return min(done / RISE, 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
