"""The closed list of names that a checkpoint may refer to, each with the inert record it becomes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import torch

from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.models.published._records import Global, Instance, Persistent, Storage, TensorRecord

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_LAYERS = {
    "torch.nn.modules.container": ("Sequential", "ModuleList", "ModuleDict"),
    "torch.nn.modules.activation": ("Softplus", "ReLU", "LeakyReLU", "Sigmoid", "Tanh", "SiLU", "GELU"),
    "torch.nn.modules.linear": ("Linear", "Identity"),
    "torch.nn.modules.conv": ("Conv2d",),
    "training.triplane": ("OSGDecoder",),
    "training.volumetric_rendering.renderer": ("ImportanceRenderer",),
    "training.volumetric_rendering.ray_marcher": ("MipRayMarcher2",),
    "training.volumetric_rendering.ray_sampler": ("RaySampler",),
}
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
# Values that are only named (a storage's type, a dtype), or classes whose objects stay closed.
_NAMED = (
    {("torch", name) for name in (*STORAGES, *_DTYPES, "device", "strided", "contiguous_format")}
    | {(module, name) for module, names in _LAYERS.items() for name in names}
    | {("argparse", "Namespace"), ("numpy", "dtype"), ("numpy", "ndarray"), *((m, "_reconstruct") for m in _NUMPY)}
)
_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "u1": "<B", "b1": "<?", "f2": "<e"}
_LONGEST_SCALAR = 8  # bytes

Load = Callable[[memoryview], Any]  # reads the torch file inside some bytes


def resolve(module: str, name: str) -> Global:
    """The record of a name; raises RefusedError naming it when it is not on the list, UsageError for TensorFlow's."""
    if (module, name) in _CALLS or (module, name) in _NAMED:
        return Global(module, name)
    if module.split(".")[0] == "tensorflow" or module.startswith("dnnlib.tflib"):
        raise UsageError(
            f"the file is a TensorFlow-era pickle ({_shown(module, name)}); convert it with the published legacy.py of "
            "the StyleGAN2-ADA PyTorch repository first, then give the converted file"
        )
    raise RefusedError(
        f"the file refers to {_shown(module, name)}, which no published checkpoint needs; it may be malicious: "
        "nothing in it was run, get the file from its publisher"
    )


def call(function: object, arguments: object, load: Load) -> Any:
    """What calling a listed name with `arguments` stands for; raises RefusedError for anything else."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise RefusedError(f"the file calls a {type(function).__name__}, which no published checkpoint does")
    handler = _CALLS.get((function.module, function.name))
    if handler is not None:
        try:
            return handler(arguments, load)
        except GuideFastError:
            raise
        except (TypeError, ValueError, IndexError, AttributeError, LookupError, struct.error) as error:
            raise IntegrityError(f"the file calls {function} wrongly ({error}); get the file again") from None
    if function.module == "torch" and function.name != "device":
        raise RefusedError(f"the file calls {function}, which no published checkpoint does")
    return Instance(function, arguments)


def _shown(module: str, name: str) -> str:
    return f"{module}.{name}"[:120].encode("ascii", "backslashreplace").decode()


def _mapping(arguments: tuple[Any, ...], load: Load) -> dict[Any, Any]:
    if not arguments:
        return {}
    (pairs,) = arguments
    if isinstance(pairs, dict):
        return dict(pairs)
    found = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError("a key is no text")
        found[key] = value
    return found


def _set(arguments: tuple[Any, ...], load: Load) -> list[Any]:
    return list(arguments[0]) if arguments and isinstance(arguments[0], list) else []


def _persistent(arguments: tuple[Any, ...], load: Load) -> Persistent:
    (meta,) = arguments
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise ValueError("its record is no class")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise ValueError("its class has no name or no state")
    return Persistent(name, state)


def _from_bytes(arguments: tuple[Any, ...], load: Load) -> Storage:
    (data,) = arguments
    if isinstance(data, bytes):  # protocol 2 spells bytes as encoded text
        data = memoryview(bytearray(data))
    if not isinstance(data, memoryview):
        raise ValueError("it is given no bytes")
    found = load(data)
    if not isinstance(found, Storage):
        raise ValueError("its bytes are no storage")
    return found


def _tensor(arguments: tuple[Any, ...], load: Load) -> TensorRecord:
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("its storage or shape is missing")
    return TensorRecord(storage, offset, size, stride)


def _parameter(arguments: tuple[Any, ...], load: Load) -> TensorRecord:
    if not isinstance(arguments[0], TensorRecord):
        raise ValueError("it holds no tensor")
    return arguments[0]


def _size(arguments: tuple[Any, ...], load: Load) -> tuple[Any, ...]:
    (sizes,) = arguments
    if not isinstance(sizes, list | tuple):
        raise ValueError("its sizes are no list")
    return tuple(sizes)


def _scalar(arguments: tuple[Any, ...], load: Load) -> int | float | bool:
    dtype, data = arguments
    if not isinstance(dtype, Instance) or dtype.kind.name != "dtype" or not isinstance(data, bytes | memoryview):
        raise ValueError("its type or bytes are missing")
    code, order = dtype.arguments[0], dtype.state[1] if isinstance(dtype.state, tuple) else "<"
    if not isinstance(code, str) or order not in ("<", "|", "=") or len(data) > _LONGEST_SCALAR:
        raise ValueError("its type is no little-endian number")
    return struct.unpack(_SCALARS[code], data)[0]


def _encode(arguments: tuple[Any, ...], load: Load) -> bytes:
    text, encoding = arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("only latin1 text is known")
    return text.encode("latin1")


_CALLS: dict[tuple[str, str], Callable[[tuple[Any, ...], Load], Any]] = {
    ("collections", "OrderedDict"): _mapping,
    ("dnnlib.util", "EasyDict"): _mapping,
    ("dnnlib", "EasyDict"): _mapping,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch.storage", "_load_from_bytes"): _from_bytes,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Size"): _size,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}
