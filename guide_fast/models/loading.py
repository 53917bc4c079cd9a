"""Generators by name or from a file, saved back to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.errors import UsageError
from guide_fast.models import eg3d
from guide_fast.models.eg3d import EG3D
from guide_fast.models.memory import keep_freed_memory
from guide_fast.models.mobile_stylegan import ASSET_NAME, MobileStyleGAN
from guide_fast.models.stylegan2 import FAMILY, StyleGAN2

GENERATORS = (ASSET_NAME,)
FAMILIES: dict[str, type[MobileStyleGAN] | type[StyleGAN2] | type[EG3D]] = {
    "mobilestylegan": MobileStyleGAN,
    FAMILY: StyleGAN2,
    eg3d.FAMILY: EG3D,
}
_KIND = "generator"


def load(name: str) -> MobileStyleGAN | StyleGAN2 | EG3D:
    """The pinned generator called `name`, or the one in a file that `save` wrote; frozen, on the CPU.

    Raises UsageError for a name that is neither; whatever `guide_fast.assets.load` raises passes through.
    """
    keep_freed_memory()
    if name in GENERATORS:
        from guide_fast import assets

        return MobileStyleGAN.from_tensors(*assets.load(name))
    if not Path(name).is_file():
        if Path(name).is_dir():
            raise UsageError(f"generator {name} is a folder; give a file made by `guide-fast apply`, or a known name")
        if Path(name).suffix or len(Path(name).parts) > 1:
            raise UsageError(f"there is no generator file {name}; give one made by `guide-fast apply`, or a known name")
        raise UsageError(
            f"unknown generator {name!r}; choose one of {', '.join(GENERATORS)}, "
            f"or give a file made by `guide-fast convert` or `guide-fast apply`"
        )
    tensors, metadata = read_safetensors(Path(name), _KIND)
    generator = from_tensors(tensors, metadata["config"])
    generator.lineage = tuple(metadata["lineage"])
    return generator


def from_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> MobileStyleGAN | StyleGAN2 | EG3D:
    """The generator whose family `config` names; raises UsageError for an unknown one, else as the family does."""
    family = config.get("family", "mobilestylegan")
    if family not in FAMILIES:
        raise UsageError(f"the generator family {family!r} is unknown; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[family].from_tensors(tensors, config)


def save(
    generator: nn.Module,
    path: Path,
) -> None:
    """Write the whole generator with the deltas applied to it; raises GuideFastError when the disk refuses."""
    tensors = {name: value for name, value in generator.state_dict().items() if not name.startswith("heads.")}
    metadata = {"config": generator.config, "lineage": list(getattr(generator, "lineage", ()))}
    write_safetensors(path, tensors, _KIND, metadata)
