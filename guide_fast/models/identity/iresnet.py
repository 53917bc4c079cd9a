"""IR-50, IR-SE50, IR-100 (also called IR-101): the face networks published for ArcFace or CurricularFace.

Weights come from the user, in the key naming of InsightFace_Pytorch, face.evoLVe, CurricularFace: `input_layer`,
`body.N.res_layer`, `body.N.shortcut_layer`, `output_layer`. Architecture: arXiv 1801.07698, section 2.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.framing import Framing
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.state_dict import batch_norm, batch_norm_shapes, check_state, folded

WIDTHS = (64, 128, 256, 512)
SIZE, DIMENSION = 112, 512
REDUCTION = 16  # of squeeze and excitation
EPSILON = 1e-5  # of every batch norm


class Architecture(NamedTuple):
    """Residual blocks in the four stages, with squeeze and excitation or without."""

    title: str
    units: tuple[int, int, int, int]
    excited: bool


IR50 = Architecture("IR-50", (3, 4, 14, 3), False)
IRSE50 = Architecture("IR-SE50", (3, 4, 14, 3), True)
IR100 = Architecture("IR-100", (3, 13, 30, 3), False)  # 100 layers for those who count convolutions, 101 for others
ARCHITECTURES = (IR50, IRSE50, IR100)
NETWORKS = {"arcface-ir50": IR50, "arcface-irse50": IRSE50, "arcface-ir100": IR100, "curricularface-ir101": IR100}


class Block(NamedTuple):
    """One residual block of the body."""

    inputs: int
    outputs: int
    stride: int


def blocks(architecture: Architecture) -> list[Block]:
    """The body, block by block; the first of each stage halves the resolution."""
    body, inputs = [], WIDTHS[0]
    for width, units in zip(WIDTHS, architecture.units, strict=True):
        for i in range(units):
            body.append(Block(inputs, width, 1 if i else 2))
            inputs = width
    return body


class IResNet(IdentityNetwork):
    """512-d embedding of a 112 x 112 face, compared by cosine; framed as face generators frame it for ArcFace.

    Build it from what `convert` returns. Its framing averages the image to 256 px, then takes rows 35 to 223 with
    columns 32 to 220 (`kernels.Framing.arcface`): no detector, as in pixel2style2pixel or GUIDE.
    """

    size = SIZE
    dimension = DIMENSION

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        framing = Framing.arcface()
        super().__init__(framing.box)
        self.framing = framing
        self.name = config["name"]
        self.stem = Convolution(tensors, "stem")
        self.stem_slope = nn.Parameter(tensors["stem.slope"])
        body = blocks(NETWORKS[self.name])
        self.body = nn.ModuleList(Residual(tensors, f"body.{i}", block.stride) for i, block in enumerate(body))
        self.head = nn.Parameter(tensors["head.weight"])
        self.head_bias = nn.Parameter(tensors["head.bias"])
        self.settle()

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, 112, 112] RGB in [0, 255] -> [N, 512], not normalised."""
        x = self.stem((crops - 127.5) / 127.5)
        x = F.prelu(x, self.stem_slope)
        for block in self.body:
            x = block(x)
        return F.linear(x.flatten(1), self.head, self.head_bias)


class Convolution(nn.Module):
    """A convolution that keeps the side at stride 1."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensors[f"{name}.weight"])
        bias = tensors.get(f"{name}.bias")
        self.bias = None if bias is None else nn.Parameter(bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2)


class Residual(nn.Module):
    """excite(conv2(prelu(conv1(scale x + shift)))) + shortcut(x)."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        # zeros are padded after this shift, so that it cannot be folded into the convolution
        self.scale = nn.Parameter(tensors[f"{name}.scale"].view(1, -1, 1, 1))
        self.shift = nn.Parameter(tensors[f"{name}.shift"].view(1, -1, 1, 1))
        self.conv1 = Convolution(tensors, f"{name}.conv1")
        self.slope = nn.Parameter(tensors[f"{name}.slope"])
        self.conv2 = Convolution(tensors, f"{name}.conv2", stride)
        projects, excites = f"{name}.shortcut.weight" in tensors, f"{name}.squeeze.weight" in tensors
        self.shortcut = Convolution(tensors, f"{name}.shortcut", stride) if projects else None
        self.squeeze = Convolution(tensors, f"{name}.squeeze") if excites else None
        self.excite = Convolution(tensors, f"{name}.excite") if excites else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addcmul(self.shift, x, self.scale)
        y = self.conv2(F.prelu(self.conv1(y), self.slope))
        if self.squeeze is not None and self.excite is not None:
            y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))))
        if self.shortcut is not None:
            return y + self.shortcut(x)
        return y + x[:, :, :: self.stride, :: self.stride]


def convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A published state dict -> fp32 tensors with all batch norms folded that can be, config.

    `name` is one of `NETWORKS`. Raises UsageError when the state dict is another network, IntegrityError when a
    tensor is missing or has another shape.
    """
    architecture, found = NETWORKS[name], recognise(state)
    if found is not architecture:
        fitting = " or ".join(other for other, known in NETWORKS.items() if known is found)
        raise UsageError(
            f"the file holds an {found.title}, not the {architecture.title} of {name}; add it as {fitting}"
        )
    check_state(f"an {architecture.title}", state, shapes(architecture, affine="output_layer.4.weight" in state))
    tensors = convert_body(architecture, state)
    tensors["head.weight"], tensors["head.bias"] = _head(state)
    return tensors, {"name": name}


def convert_body(architecture: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stem with body of a published state dict, checked against `body_shapes`, as `Convolution`, `Residual` read them.

    The names are `stem`, `stem.slope`, `body.N`.
    """
    tensors: dict[str, Tensor] = {}
    _fold(tensors, "stem", state, "input_layer.0", "input_layer.1")
    tensors["stem.slope"] = state["input_layer.2.weight"].float()
    for i in range(sum(architecture.units)):
        mine, theirs = f"body.{i}", f"body.{i}.res_layer"
        scale, shift = batch_norm(state, f"{theirs}.0", EPSILON)
        tensors[f"{mine}.scale"], tensors[f"{mine}.shift"] = scale.float(), shift.float()
        tensors[f"{mine}.conv1.weight"] = state[f"{theirs}.1.weight"].float()
        tensors[f"{mine}.slope"] = state[f"{theirs}.2.weight"].float()
        _fold(tensors, f"{mine}.conv2", state, f"{theirs}.3", f"{theirs}.4")
        if architecture.excited:
            tensors[f"{mine}.squeeze.weight"] = state[f"{theirs}.5.fc1.weight"].float()
            tensors[f"{mine}.excite.weight"] = state[f"{theirs}.5.fc2.weight"].float()
        if f"body.{i}.shortcut_layer.0.weight" in state:
            _fold(tensors, f"{mine}.shortcut", state, f"body.{i}.shortcut_layer.0", f"body.{i}.shortcut_layer.1")
    return tensors


def recognise(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture that the names tell; raises UsageError when they are no IR network's."""
    if "input_layer.0.weight" not in state or "body.0.res_layer.0.weight" not in state:
        first = next(iter(state), "nothing")[:60]
        raise UsageError(
            f"the file holds no IR network (it starts with {first!r}); give a state dict with input_layer, "
            "body.N.res_layer, output_layer, as InsightFace_Pytorch or CurricularFace publish it"
        )
    numbers = (name.split(".")[1] for name in state if name.startswith("body."))
    count = 1 + max(int(number) for number in numbers if number.isdecimal() and len(number) < 5)
    excited = "body.0.res_layer.5.fc1.weight" in state
    for architecture in ARCHITECTURES:
        if (sum(architecture.units), architecture.excited) == (count, excited):
            return architecture
    known = ", ".join(f"{sum(a.units)} ({a.title})" for a in ARCHITECTURES)
    raise UsageError(
        f"the file holds an IR network of {count} blocks {'with' if excited else 'without'} squeeze and excitation; "
        f"known are {known}"
    )


def shapes(architecture: Architecture, *, affine: bool = True) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published naming that `convert` reads; `affine`: whether the last batch norm has weights."""
    last = WIDTHS[-1]
    wanted = body_shapes(architecture) | batch_norm_shapes("output_layer.0", last)
    wanted |= {"output_layer.3.weight": (DIMENSION, last * 7 * 7), "output_layer.3.bias": (DIMENSION,)}
    return wanted | batch_norm_shapes("output_layer.4", DIMENSION, affine=affine)


def body_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published naming that `convert_body` reads."""
    first = WIDTHS[0]
    wanted: dict[str, tuple[int, ...]] = {"input_layer.0.weight": (first, 3, 3, 3), "input_layer.2.weight": (first,)}
    wanted |= batch_norm_shapes("input_layer.1", first)
    for i, (inputs, outputs, _) in enumerate(blocks(architecture)):
        name = f"body.{i}.res_layer"
        wanted |= batch_norm_shapes(f"{name}.0", inputs)
        wanted |= {f"{name}.1.weight": (outputs, inputs, 3, 3), f"{name}.2.weight": (outputs,)}
        wanted |= {f"{name}.3.weight": (outputs, outputs, 3, 3)} | batch_norm_shapes(f"{name}.4", outputs)
        if architecture.excited:
            inner = outputs // REDUCTION
            wanted |= {f"{name}.5.fc1.weight": (inner, outputs, 1, 1), f"{name}.5.fc2.weight": (outputs, inner, 1, 1)}
        if inputs != outputs:
            wanted[f"body.{i}.shortcut_layer.0.weight"] = (outputs, inputs, 1, 1)
            wanted |= batch_norm_shapes(f"body.{i}.shortcut_layer.1", outputs)
    return wanted


def _fold(tensors: dict[str, Tensor], name: str, state: Mapping[str, Tensor], convolution: str, norm: str) -> None:
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = folded(state, convolution, norm, EPSILON)


def _head(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Batch norm, linear layer, batch norm as one linear layer: [512, 25088], [512]."""
    before_scale, before_shift = batch_norm(state, "output_layer.0", EPSILON)
    after_scale, after_shift = batch_norm(state, "output_layer.4", EPSILON)
    weight = state["output_layer.3.weight"].double()  # [512, 512 x 49], channels outermost
    bias = state["output_layer.3.bias"].double() + weight @ before_shift.repeat_interleave(49)
    weight = weight * before_scale.repeat_interleave(49) * after_scale[:, None]
    return weight.float(), (bias * after_scale + after_shift).float()
