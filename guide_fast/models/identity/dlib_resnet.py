"""dlib's face recognition ResNet-29 (`dlib_face_recognition_resnet_model_v1.dat`, CC0), without dlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError
from guide_fast.models.framing import Box
from guide_fast.models.identity import IdentityNetwork

ASSET_NAME = "dlib-resnet-v1"
WEIGHTS_FILE = "dlib_face_recognition_resnet_model_v1.dat"

# Where dlib's own `get_face_chip_details(size=150, padding=0.25)` puts the chip: mean over ten FFHQ-framed photos
# (five landmarks, standard deviation 0.004 to 0.013); the embedding of this fixed crop is then 0.13 (0.08 to 0.19)
# from that of dlib's own detection, landmarks, chip. Of 14 boxes about it none separates clearly better. Distances
# measured at 512 px: five photos of one person 0.34 (largest 0.46); one photo shifted, zoomed, flipped, tinted or
# blurred 0.16 (0.33); strangers on photos 0.85 +- 0.07 (smallest 0.72), strangers of MobileStyleGAN 0.79 +- 0.10
# (smallest 0.46).
FFHQ_BOX = Box(0.266, 0.963, 0.156, 0.853)
STRANGER_DISTANCE = 0.8


class DlibResNet(IdentityNetwork):
    """128-d embedding of a 150 x 150 face, compared by Euclidean distance, not by angle: cosine saturates.

    Build it from what `convert` returns. `embed` and `forward` give the raw 128-d vector, whose length carries
    meaning. Residual blocks follow dlib: where the two branches differ in size, the smaller one is padded with zeros
    at the far end (channels, rows, columns).
    """

    name = ASSET_NAME
    size = 150
    dimension = 128

    mean: Tensor  # [1, 3, 1, 1], RGB in [0, 255]

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__(FFHQ_BOX)
        self.register_buffer("mean", torch.tensor(config["mean"], dtype=torch.float32).view(1, 3, 1, 1))
        self.stem = _convolution(tensors, "stem", stride=config["stem_stride"])
        self.blocks = nn.ModuleList(
            _Block(
                _convolution(tensors, f"blocks.{i}.conv1", stride=stride, padding=0 if stride > 1 else 1),
                _convolution(tensors, f"blocks.{i}.conv2", padding=1),
            )
            for i, stride in enumerate(config["strides"])
        )
        self.head = nn.Parameter(tensors["head"])  # [256, 128]
        self.settle()

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1], FFHQ framing, any R -> raw embeddings [N, 128]."""
        return self(self.framing(images))

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, 150, 150] RGB in [0, 255], framed as dlib's `get_face_chip(size=150, padding=0.25)` -> [N, 128]."""
        x = (crops - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem(x), inplace=True), kernel_size=3, stride=2)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3)) @ self.head

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - distance / STRANGER_DISTANCE, [N, 128] and [N, 128] -> [N]: 1 the same picture, 0 a typical stranger."""
        return 1 - self.distance(a, b) / STRANGER_DISTANCE


class _Block(nn.Module):
    """relu(conv2(relu(conv1(x))) + x), with x averaged over 2 x 2 when conv1 has stride 2."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        skip = x if self.conv1.stride[0] == 1 else F.avg_pool2d(x, 2)
        if y.shape != skip.shape:
            shape = [max(sizes) for sizes in zip(y.shape[1:], skip.shape[1:], strict=True)]
            y, skip = _zero_pad(y, shape), _zero_pad(skip, shape)
        return F.relu(y + skip, inplace=True)


def _zero_pad(x: Tensor, shape: list[int]) -> Tensor:
    channels, rows, columns = (want - have for want, have in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, columns, 0, rows, 0, channels))


def _convolution(tensors: Mapping[str, Tensor], name: str, *, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    outputs, inputs, kernel, _ = weight.shape
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
    return convolution


def convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """dlib's file (key `WEIGHTS_FILE`) -> float32 tensors with the per-channel affine layers folded in, and a config.

    Raises IntegrityError when the file is not the network that this module knows.
    """
    reader = _DlibReader(files[WEIGHTS_FILE].read_bytes())
    mean = reader.header()
    stem = reader.convolution_affine_relu(first=True)
    reader.pool("max_pool_2")
    tensors = {"stem.weight": stem[0], "stem.bias": stem[1]}
    strides: list[int] = []
    while (name := reader.layer_name()) != "avg_pool_2":
        weight, bias, stride = reader.convolution_affine_relu(name)
        tensors[f"blocks.{len(strides)}.conv1.weight"], tensors[f"blocks.{len(strides)}.conv1.bias"] = weight, bias
        weight, bias, _ = reader.residual(down=stride > 1)
        tensors[f"blocks.{len(strides)}.conv2.weight"], tensors[f"blocks.{len(strides)}.conv2.bias"] = weight, bias
        strides.append(stride)
    reader.pool()
    tensors["head"] = reader.fully_connected()
    reader.end()
    return tensors, {"mean": mean, "stem_stride": stem[2], "strides": strides}


class _DlibReader:
    """dlib's serialisation, read front to back.

    An integer is a control byte (bit 7: negative, bits 0 to 3: count) followed by that many little-endian bytes. A
    float is two integers, mantissa * 2^exponent. A string is its length followed by its bytes. A tensor is a version,
    four sizes (samples, channels, rows, columns), then raw little-endian float32. An alias tensor is a version and
    four sizes. The file holds the loss layer, one version number for each layer from the output inwards, then the
    layers from the input outwards; each ends with three flags and three tensors used in training only, the first layer
    with one more integer.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def header(self) -> list[float]:
        """Skip to the first layer; the mean RGB that the input layer subtracts."""
        self.integer()
        self._expect("loss_metric_2", self.string())
        self.number(), self.number()
        while self._peek_integer() < 4:  # layer format versions; the next value is the length of the input layer's name
            self.integer()
        self._expect("input_rgb_image_sized", self.string())
        mean = [self.number() for _ in range(3)]
        self._expect((150, 150), (self.integer(), self.integer()))
        return mean

    def layer_name(self) -> str:
        """The name that starts the next layer."""
        return self.string()

    def convolution_affine_relu(self, name: str | None = None, *, first: bool = False) -> tuple[Tensor, Tensor, int]:
        """A `con_4`, `affine_`, `relu_` run -> folded weight [O, I, k, k], bias [O], stride."""
        folded = self._convolution_affine(name, first=first)
        self._expect("relu_", self.string())
        self._training_state()
        return folded

    def residual(self, *, down: bool) -> tuple[Tensor, Tensor, int]:
        """The second half of a block: `con_4`, `affine_`, `avg_pool_2` if `down`, `add_prev_`, `relu_`."""
        folded = self._convolution_affine()
        if down:
            self.pool("avg_pool_2")
        self._expect("add_prev_", self.string())
        self._training_state()
        self._expect("relu_", self.string())
        self._training_state()
        return folded

    def pool(self, name: str | None = None) -> None:
        """A pooling layer, whose sizes are those of the architecture; `name` None: it was read already."""
        if name is not None:
            self._expect(name, self.string())
        for _ in range(6):
            self.integer()
        self._training_state()

    def fully_connected(self) -> Tensor:
        """The last layer, without bias -> [inputs, outputs]."""
        self._expect("fc_2", self.string())
        outputs, inputs = self.integer(), self.integer()
        weight = self.tensor().reshape(inputs, outputs)
        self._alias(), self._alias()
        self._expect(1, self.integer())  # bias mode: none
        for _ in range(4):
            self.number()
        self._training_state()
        return torch.from_numpy(weight)

    def end(self) -> None:
        """Raise IntegrityError unless every byte was read."""
        self._expect(len(self._data), self._position)

    def _convolution_affine(self, name: str | None = None, *, first: bool = False) -> tuple[Tensor, Tensor, int]:
        self._expect("con_4", self.string() if name is None else name)
        parameters = self.tensor()
        filters, _, _, stride, _, _, _ = (self.integer() for _ in range(7))  # rows, columns, y and x stride, padding
        shape = self._alias()
        self._alias()
        for _ in range(4):  # learning rate and weight decay multipliers
            self.number()
        self._training_state()
        if first:
            self._expect(1, self.integer())  # samples that the input layer makes of one image
        count = int(np.prod(shape))
        weight, bias = parameters[:count].reshape(shape), parameters[count:]
        self._expect("affine_", self.string())
        gamma, beta = self.tensor().reshape(2, filters)
        self._alias(), self._alias()
        self._expect(0, self.integer())  # mode: per channel
        self._training_state()
        folded = weight.astype(np.float64) * gamma[:, None, None, None]
        shift = bias.astype(np.float64) * gamma + beta
        return torch.from_numpy(folded.astype(np.float32)), torch.from_numpy(shift.astype(np.float32)), stride

    def _training_state(self) -> None:
        self._take(3)
        for _ in range(3):
            self.tensor()

    def _alias(self) -> tuple[int, ...]:
        self.integer()
        return tuple(self.integer() for _ in range(4))

    def tensor(self) -> np.ndarray:
        """A tensor, flat, float32."""
        self._expect(2, self.integer())
        count = int(np.prod([self.integer() for _ in range(4)]))
        return np.frombuffer(self._take(4 * count), dtype="<f4").astype(np.float32)

    def number(self) -> float:
        """A floating point number."""
        mantissa, exponent = self.integer(), self.integer()
        return float(mantissa) * 2.0**exponent

    def string(self) -> str:
        """A string; layer names are ASCII."""
        return self._take(self.integer()).decode("ascii", errors="replace")

    def integer(self) -> int:
        """A compressed integer."""
        control = self._take(1)[0]
        value = int.from_bytes(self._take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def _peek_integer(self) -> int:
        position = self._position
        value = self.integer()
        self._position = position
        return value

    def _take(self, count: int) -> bytes:
        chunk = self._data[self._position : self._position + count]
        self._expect(count, len(chunk))
        self._position += count
        return chunk

    def _expect(self, wanted: object, found: object) -> None:
        if wanted != found:
            raise IntegrityError(
                f"{WEIGHTS_FILE}: expected {wanted!r} near byte {self._position}, found {found!r}; fetch the file anew"
            )
