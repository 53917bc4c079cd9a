"""State dicts of published networks, read without executing anything in them."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.models.published import _torch_file
from guide_fast.models.published._file import read_bytes
from guide_fast.models.published._records import Budget, Instance, TensorRecord, materialised

Shapes = Mapping[str, tuple[int, ...]]
_PLAIN = bool | int | float | str
_MOST_COMPARED = 2000  # names among which the nearest one is looked for
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors format says


@dataclass(frozen=True)
class StateFile:
    """What was read of one file."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]  # texts, numbers, booleans of the dictionaries beside the state dict, all in one
    sha256: str


def read_state_dict(
    path: Path,
    *,
    sha256: str | None = None,
    unused: Sequence[str] = (),
) -> tuple[dict[str, Tensor], str]:
    """The tensors in the `.pth` or `.safetensors` file at `path`, CPU, as stored, with the file's sha256.

    A dictionary inside `state_dict` is unwrapped, the `module.` of a parallel model dropped; names that start with one
    of `unused` are not read. Takes the file's size in memory besides the tensors. Raises UsageError for a file that is
    no state dict, IntegrityError for one that is damaged or whose bytes are not those of `sha256` (64 hex digits),
    RefusedError for one that asks for anything but tensors.
    """
    read = read_state_file(path, sha256=sha256, unused=unused)
    return read.tensors, read.sha256


def read_state_file(
    path: Path,
    *,
    sha256: str | None = None,
    unused: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> StateFile:
    """As `read_state_dict`, with what a training script put beside `state_dict` under the names `beside`.

    A tensor there joins the others under its name; of a dictionary (or argparse's namespace) the plain values are
    settings.
    """
    path = Path(path)
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise UsageError(f"sha256 {sha256[:80]!r} is not 64 hexadecimal digits; give what `sha256sum` prints")
    data = read_bytes(path, "state dicts", "state dict (.pth or .safetensors)")
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise IntegrityError(
            f"{path} has sha256 {digest[:12]}, {sha256.lower()[:12]} was expected; nothing was kept, get the file again"
        )
    try:
        return StateFile(*_read(data, tuple(unused), tuple(beside)), digest)
    except GuideFastError as error:
        raise type(error)(f"{path}: {error}") from None


def check_every_name(what: str, state: Mapping[str, Tensor], wanted: Shapes) -> None:
    """As `check_state`; raises IntegrityError for the first name of `state` that `what` does not have, too.

    A wrong name is told with the nearest right one. Counters of batch norms (`num_batches_tracked`) do not matter.
    """
    for name in wanted:
        if name not in state:
            raise IntegrityError(f"{what} has {name}, the file does not{_nearest(name, state, wanted)}; get it again")
    check_state(what, state, wanted)
    for name in state:
        if name not in wanted and not name.endswith("num_batches_tracked"):
            near = _nearest(name, wanted, {})
            raise IntegrityError(f"the file has {name[:100]}, {what} does not{near}; it holds another network")


def _nearest(name: str, names: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """A hint at the one of `names`, but for those that are `right`, that is most like `name`; empty without any."""
    candidates = [other for other in names if other not in right and len(other) <= 200]
    near = difflib.get_close_matches(name[:200], candidates[:_MOST_COMPARED], 1)
    return f" (but {near[0]})" if near else ""


def check_state(what: str, state: Mapping[str, Tensor], wanted: Shapes) -> None:
    """Raise IntegrityError naming the first tensor of `wanted` that `what` lacks, or has in another shape or kind."""
    for name, shape in wanted.items():
        if name not in state:
            raise IntegrityError(f"{what} lacks {name}; get the file again")
        found = tuple(state[name].shape)
        if found != shape:
            raise IntegrityError(f"{name} has shape {list(found)} where {what} has {list(shape)}; get the file again")
        if not state[name].is_floating_point():
            raise IntegrityError(f"{name} holds {state[name].dtype} where {what} has floats; get the file again")


def batch_norm_shapes(name: str, channels: int, *, affine: bool = True) -> dict[str, tuple[int, ...]]:
    """What `batch_norm` reads for `name`."""
    parts = ("weight", "bias", "running_mean", "running_var") if affine else ("running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def batch_norm(state: Mapping[str, Tensor], name: str, epsilon: float) -> tuple[Tensor, Tensor]:
    """Scale with shift, fp64 [C], of a batch norm in eval mode: y = scale x + shift; one without affine has neither."""
    scale = torch.rsqrt(state[f"{name}.running_var"].double() + epsilon)
    if f"{name}.weight" in state:
        scale = scale * state[f"{name}.weight"].double()
    shift = -state[f"{name}.running_mean"].double() * scale
    if f"{name}.bias" in state:
        shift = shift + state[f"{name}.bias"].double()
    return scale, shift


def folded(state: Mapping[str, Tensor], convolution: str, norm: str, epsilon: float) -> tuple[Tensor, Tensor]:
    """Weight with bias, fp32, of a convolution without bias followed by a batch norm."""
    scale, shift = batch_norm(state, norm, epsilon)
    weight = state[f"{convolution}.weight"].double() * scale[:, None, None, None]
    return weight.float(), shift.float()


def _read(
    data: bytearray, unused: tuple[str, ...], beside: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LONGEST_HEADER:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return {name: v for name, v in _plain_names(load(bytes(data))).items() if not name.startswith(unused)}, {}
        except SafetensorError as error:
            raise IntegrityError(f"it is damaged ({error}); get it again") from None
    budget = Budget(len(data))
    view, start = memoryview(data), bytes(data[:64])
    if start.startswith((_torch_file.ZIP, _torch_file.LEGACY)):
        root = _torch_file.read_torch(view, budget)
    elif start[:1] == b"\x80":
        root = _torch_file.read_pickle(view, budget)
    else:
        raise UsageError(f"it is no state dict (it starts with {start[:8]!r}); give a .pth or .safetensors file")
    found = root
    if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
        found = root["state_dict"]
    if not isinstance(found, dict) or not found:
        raise UsageError("it holds no dictionary of tensors; give a state dict (.pth or .safetensors)")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise UsageError(f"its {str(name)[:60]!r} is no tensor; give a state dict (.pth or .safetensors)")
    more, settings = _beside(root, beside if found is not root else ())
    records = _plain_names(found) | more
    return materialised({k: v for k, v in records.items() if not k.startswith(unused)}, budget), settings


def _beside(root: dict[str, Any], names: tuple[str, ...]) -> tuple[dict[str, TensorRecord], dict[str, Any]]:
    """Tensors, settings among the entries of `root` called `names`."""
    records: dict[str, TensorRecord] = {}
    settings: dict[str, Any] = {}
    for name in names:
        value = root.get(name)
        if isinstance(value, Instance):  # argparse.Namespace
            value = value.state
        if isinstance(value, TensorRecord):
            records[name] = value
        elif isinstance(value, dict):
            settings |= {
                k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, bool | int | float | str)
            }
    return records, settings


def _plain_names(found: dict[str, Any]) -> dict[str, Any]:
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return found
