"""Networks written from their papers, layer by layer, with random weights under the published names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.models.identity.iresnet import REDUCTION


@torch.no_grad()
def randomised(module: nn.Module, seed: int = 0, gain: float = 0.7) -> nn.Module:
    """Weights that let signals through, statistics of batch norm away from 0 and 1; in eval mode."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=rng)
        if name.endswith("running_var"):
            value.copy_(noise.abs() * 0.3 + 0.7)
        elif value.ndim > 1:
            value.copy_(noise * (1.6 / value[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            value.copy_(noise * 0.1 + gain)
        else:
            value.copy_(noise * 0.1)
    for layer in module.modules():
        if isinstance(layer, nn.PReLU):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng) * 0.1 + 0.25)
    return module.eval()


class Excitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, excited: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        layers = [
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.res_layer = nn.Sequential(*layers, *([Excitation(outputs)] if excited else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IRNetwork(nn.Module):
    """[N, 3, 112, 112] in [-1, 1] -> [N, 512]."""

    def __init__(self, units: tuple[int, ...], excited: bool, affine: bool = True) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        body, inputs = [], 64
        for outputs, count in zip((64, 128, 256, 512), units, strict=True):
            for i in range(count):
                body.append(Unit(inputs, outputs, 2 if i == 0 else 1, excited))
                inputs = outputs
        self.body = nn.Sequential(*body)
        last = nn.BatchNorm1d(512, affine=affine)
        linear = nn.Linear(512 * 7 * 7, 512)
        self.output_layer = nn.Sequential(nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), linear, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


def vgg16() -> nn.Module:
    """`features.N` of VGG16, configuration D."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if outputs:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return _with_features(nn.Sequential(*layers))


def alexnet() -> nn.Module:
    """`features.N` of AlexNet, one column."""
    return _with_features(
        nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
    )


def _with_features(layers: nn.Sequential) -> nn.Module:
    network = nn.Module()
    network.features = layers
    network.classifier = nn.Linear(2, 2)  # there is one in the published files, and nothing reads it
    return network


def linear_heads(channels: tuple[int, ...], seed: int = 9) -> dict[str, Tensor]:
    """`linN.model.1.weight`, positive as the published ones are."""
    rng = torch.Generator().manual_seed(seed)
    return {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=rng) for i, c in enumerate(channels)}


def lpips(features: nn.Sequential, taps: tuple[int, ...], heads: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """The distance of images in [-1, 1] as the paper states it, taps being places in `features`."""
    total = torch.zeros(len(a))
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    a, b = (a - shift) / scale, (b - shift) / scale
    for i, layer in enumerate(features):
        a, b = layer(a), layer(b)
        if i in taps:
            u, v = (x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
            weighted = F.conv2d((u - v).square(), heads[f"lin{taps.index(i)}.model.1.weight"])
            total = total + weighted.mean(dim=(1, 2, 3))
    return total


class Conv(nn.Module):
    """Convolution, batch norm (eps 0.001), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, **options: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Named layers with the function that joins them."""

    def __init__(self, join: Callable[[nn.Module, Tensor], list[Tensor]], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.join(self, x), dim=1)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _block_a(inputs: int, pool: int) -> Branches:
    return Branches(
        lambda m, x: [
            m.branch1x1(x),
            m.branch5x5_2(m.branch5x5_1(x)),
            m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x))),
            m.branch_pool(_average(x)),
        ],
        branch1x1=Conv(inputs, 64),
        branch5x5_1=Conv(inputs, 48),
        branch5x5_2=Conv(48, 64, 5, padding=2),
        branch3x3dbl_1=Conv(inputs, 64),
        branch3x3dbl_2=Conv(64, 96, 3, padding=1),
        branch3x3dbl_3=Conv(96, 96, 3, padding=1),
        branch_pool=Conv(inputs, pool),
    )


def _block_b(inputs: int) -> Branches:
    return Branches(
        lambda m, x: [
            m.branch3x3(x),
            m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x))),
            F.max_pool2d(x, kernel_size=3, stride=2),
        ],
        branch3x3=Conv(inputs, 384, 3, stride=2),
        branch3x3dbl_1=Conv(inputs, 64),
        branch3x3dbl_2=Conv(64, 96, 3, padding=1),
        branch3x3dbl_3=Conv(96, 96, 3, stride=2),
    )


def _block_c(c: int) -> Branches:
    row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
    return Branches(
        lambda m, x: [
            m.branch1x1(x),
            m.branch7x7_3(m.branch7x7_2(m.branch7x7_1(x))),
            m.branch7x7dbl_5(m.branch7x7dbl_4(m.branch7x7dbl_3(m.branch7x7dbl_2(m.branch7x7dbl_1(x))))),
            m.branch_pool(_average(x)),
        ],
        branch1x1=Conv(768, 192),
        branch7x7_1=Conv(768, c),
        branch7x7_2=Conv(c, c, **row),
        branch7x7_3=Conv(c, 192, **column),
        branch7x7dbl_1=Conv(768, c),
        branch7x7dbl_2=Conv(c, c, **column),
        branch7x7dbl_3=Conv(c, c, **row),
        branch7x7dbl_4=Conv(c, c, **column),
        branch7x7dbl_5=Conv(c, 192, **row),
        branch_pool=Conv(768, 192),
    )


def _block_d() -> Branches:
    return Branches(
        lambda m, x: [
            m.branch3x3_2(m.branch3x3_1(x)),
            m.branch7x7x3_4(m.branch7x7x3_3(m.branch7x7x3_2(m.branch7x7x3_1(x)))),
            F.max_pool2d(x, kernel_size=3, stride=2),
        ],
        branch3x3_1=Conv(768, 192),
        branch3x3_2=Conv(192, 320, 3, stride=2),
        branch7x7x3_1=Conv(768, 192),
        branch7x7x3_2=Conv(192, 192, (1, 7), padding=(0, 3)),
        branch7x7x3_3=Conv(192, 192, (7, 1), padding=(3, 0)),
        branch7x7x3_4=Conv(192, 192, 3, stride=2),
    )


def _block_e(inputs: int, pool: Callable[[Tensor], Tensor]) -> Branches:
    def join(m: nn.Module, x: Tensor) -> list[Tensor]:
        three = m.branch3x3_1(x)
        double = m.branch3x3dbl_2(m.branch3x3dbl_1(x))
        return [
            m.branch1x1(x),
            *(m.branch3x3_2a(three), m.branch3x3_2b(three)),
            *(m.branch3x3dbl_3a(double), m.branch3x3dbl_3b(double)),
            m.branch_pool(pool(x)),
        ]

    return Branches(
        join,
        branch1x1=Conv(inputs, 320),
        branch3x3_1=Conv(inputs, 384),
        branch3x3_2a=Conv(384, 384, (1, 3), padding=(0, 1)),
        branch3x3_2b=Conv(384, 384, (3, 1), padding=(1, 0)),
        branch3x3dbl_1=Conv(inputs, 448),
        branch3x3dbl_2=Conv(448, 384, 3, padding=1),
        branch3x3dbl_3a=Conv(384, 384, (1, 3), padding=(0, 1)),
        branch3x3dbl_3b=Conv(384, 384, (3, 1), padding=(1, 0)),
        branch_pool=Conv(inputs, 192),
    )


class FIDInception(nn.Module):
    """[N, 3, R, R] in [-1, 1] -> [N, 2048], at 299 px."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(_block_c, (128, 160, 160, 192))
        self.Mixed_7a = _block_d()
        self.Mixed_7b = _block_e(1280, _average)
        self.Mixed_7c = _block_e(2048, lambda x: F.max_pool2d(x, kernel_size=3, stride=1, padding=1))
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), kernel_size=3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
