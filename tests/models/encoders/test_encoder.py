"""An encoder resizes photos, adds the mean latent, knows which generators it was made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import seeded, tiny_generator
from tiny_stylegan2 import tiny_stylegan2
from torch import Tensor, nn

from guide_fast.errors import UsageError
from guide_fast.models.encoders import Encoder
from guide_fast.models.encoders.encoder import family_of, resized


class Averages(Encoder):
    """Each slot of the code is the images' mean colour."""

    name, family, resolution, w_dim = "averages", "stylegan2", 8, 16

    def __init__(self, num_ws: int, offset: Tensor | None = None) -> None:
        super().__init__(offset)
        self.num_ws = num_ws
        self.dropout = nn.Dropout(0.5)
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 8, 8)
        colour = self.dropout(images.mean(dim=(1, 2, 3)))
        return colour[:, None, None].expand(-1, self.num_ws, self.w_dim)


def test_offset_of_the_checkpoint_goes_before_the_mean_of_the_generator() -> None:
    images, w_mean, offset = torch.full((2, 3, 32, 32), 0.25), seeded(16, seed=1), seeded(10, 16, seed=2)
    torch.testing.assert_close(Averages(10).encode(images, w_mean=w_mean), (0.25 + w_mean).expand(2, 10, 16))
    torch.testing.assert_close(Averages(10, offset).encode(images, w_mean=w_mean), (0.25 + offset).expand(2, 10, 16))


def test_encoder_stays_in_eval_mode() -> None:
    encoder = Averages(10).train()
    assert not encoder.training and not encoder.dropout.training
    images, w_mean = seeded(1, 3, 8, 8, seed=1), torch.zeros(16)
    assert torch.equal(encoder.encode(images, w_mean=w_mean), encoder.encode(images, w_mean=w_mean))


def test_generator_of_another_kind_is_refused_with_both_shapes() -> None:
    generator: Any = tiny_stylegan2()
    Averages(generator.num_ws).check_fits(generator)
    with pytest.raises(UsageError, match=r"averages gives latents \[7, 16\] of stylegan2, tiny-stylegan2 takes \[8"):
        Averages(7).check_fits(generator)
    other: Any = tiny_generator()
    assert not Averages(other.num_ws).fits(other)
    with pytest.raises(UsageError, match=r"tiny takes \[8, 16\] of mobilestylegan"):
        Averages(other.num_ws).check_fits(other)
    assert family_of(other) == "mobilestylegan"


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (3, 8, 8)])
def test_images_that_are_not_square_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="square images"):
        Averages(10).encode(torch.zeros(shape), w_mean=torch.zeros(16))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "target"), [(96, 32), (64, 27), (20, 32), (32, 32)])
def test_images_are_resized_as_pillow_does(mode: str, size: int, target: int) -> None:
    pixels = seeded(size, size, seed=3).numpy()
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.array(Image.fromarray(pixels).resize((target, target), filters[mode]))
    found = resized(torch.from_numpy(pixels)[None, None], target, mode=mode)
    torch.testing.assert_close(found[0, 0], torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
