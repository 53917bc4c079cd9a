"""Structured mutations of a persistent generator: well-formed pickles that describe what no publisher wrote.

Bytes that are cut or flipped mostly end in the first check. These mutations keep the file whole, so that what they
change reaches the check it is meant for: types, shapes, strides, storages, arguments of calls, nesting, names.
"""

from __future__ import annotations

import copy
import functools
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from published_files import Called, _Persistent, eg3d_module, module, spelled, stylegan2_module, write_pickle
from torch import Tensor

Place = tuple[Any, Any]  # a dict or list with the key or index in it

DEEP = 80  # levels: more than any check allows, fewer than the writer's own recursion
WHOLE = [0, 1, -1, 2, 3, 5, 7, 48, 255, 2**16 + 1, 10**9, 2**31, 2**62, 2**70]
REAL = [0.0, -0.0, 0.5, -2.5, 1e-40, 1e308, float("inf"), float("-inf"), float("nan")]
TEXT = ["", "x", "auto", "none", "random", "relu", "linear", "softplus", "orig", "resnet", "x" * 5000, "\x00", "5"]
NAMES = [
    "_parameters",
    "_buffers",
    "_modules",
    "weight",
    "bias",
    "synthesis",
    "mapping",
    "conv1",
    "b8",
    "0",
    "",
    7,
    None,
]
CLASSES = ["Generator", "TriPlaneGenerator", "SynthesisBlock", "SuperresolutionHybrid2X", "SuperresolutionHybrid8X", ""]
CALLS = [
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
    ("numpy.core.multiarray", "scalar"),
    ("builtins", "set"),
    ("os", "system"),
]
UNREAD = ("type", "version", "module_src", "training")
STRUCTURAL = ("retype", "gone", "renamed", "copied", "swapped", "nested", "looped", "called")


@functools.cache
def _whole_trees() -> tuple[Any, ...]:
    """What is mutated, tensors spelled out as calls."""
    made = (
        stylegan2_module(),
        stylegan2_module(half=1, c=2),
        eg3d_module(),
        eg3d_module("SuperresolutionHybrid4X"),
    )
    return tuple({"G_ema": _spelled(one)} for one in made)


def mutated(rng: random.Random, path: Path) -> bytes:
    """A persistent generator after one to three mutations; `path` is written on the way."""
    tree = copy.deepcopy(rng.choice(_whole_trees()))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(tree)
        if not places:
            break
        sort = rng.choice(("tensor", "setting", "setting", "any"))
        some = [place for place in places if sort in ("any", _sort(place))] or places
        name = rng.choice(sorted({_name(place) for place in some}))
        chosen = [place for place in some if _name(place) == name]
        kind = "retype" if sort == "setting" else "tensor" if sort == "tensor" else rng.choice(STRUCTURAL)
        # what all layers have alike is compared between them first
        for place in chosen if rng.random() < 0.3 else [rng.choice(chosen)]:
            _mutate(rng, kind, place, places, tree)
    try:
        return write_pickle(tree, path).read_bytes()
    except RecursionError:  # a call among its own arguments, which no pickle can spell
        return mutated(rng, path)


def _spelled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return spelled(value)
    if isinstance(value, _Persistent):
        value.meta = {key: _spelled(item) for key, item in value.meta.items()}
    elif isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    return value


def _inside(value: Any) -> dict[Any, Any] | list[Any] | None:
    """What can be changed within `value`."""
    value = value.meta if isinstance(value, _Persistent) else value.arguments if isinstance(value, Called) else value
    return value if isinstance(value, dict | list) else None


def _places(tree: Any) -> list[Place]:
    """Every place below `tree`, each container once."""
    found: list[Place] = []
    seen: set[int] = set()
    left = [tree]
    while left:
        inside = _inside(left.pop())
        if inside is None or id(inside) in seen:
            continue
        seen.add(id(inside))
        items = inside.items() if isinstance(inside, dict) else enumerate(inside)
        for key, value in items:
            if key not in UNREAD:
                found.append((inside, key))
                left.append(value)
    return found


def _sort(place: Place) -> str:
    """Whether a tensor lies there, a setting (plain, under a name), or what holds them together."""
    inside, key = place
    value = inside[key]
    if isinstance(value, Called):
        return "tensor" if value.name.startswith("_rebuild_tensor") else "structure"
    plain = value is None or isinstance(value, bool | int | float | str | list)
    return "setting" if plain and isinstance(inside, dict) else "structure"


def _name(place: Place) -> str:
    """By which places are chosen first: there are many weights, but one channel_base."""
    inside, key = place
    return str(key)[:40] if isinstance(inside, dict) else f"[{key}] of {len(inside)}"


def _mutate(rng: random.Random, kind: str, place: Place, places: list[Place], tree: Any) -> None:
    inside, key = place
    if key not in inside if isinstance(inside, dict) else key >= len(inside):
        return  # an earlier mutation took it
    value = inside[key]
    if kind == "retype":
        inside[key] = _near(rng, value)
    elif kind == "tensor":
        inside[key] = _other_tensor(rng, value)
    elif kind == "gone":
        del inside[key]
    elif kind == "renamed" and isinstance(inside, dict):
        inside[rng.choice([*NAMES, *(name for _, name in places if isinstance(name, str))])] = inside.pop(key)
    elif kind in ("renamed", "copied"):
        other, name = rng.choice(places)
        if isinstance(other, dict) or name < len(other):
            other[name] = value
    elif kind == "swapped":
        other, name = rng.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            inside[key], other[name] = other[name], value
    elif kind == "nested":
        for _ in range(rng.choice((1, 2, 15, DEEP))):
            value = rng.choice((lambda v: [v], lambda v: (v,), lambda v: {"x": v}, _wrapped))(value)
        inside[key] = value
    elif kind == "looped" and not isinstance(inside, list):
        inside[key] = rng.choice((inside, tree, tree.get("G_ema", tree)))
    else:
        inside[key] = Called(*rng.choice(CALLS), rng.choice(([], [value], [value, value], [(value,)], [value] * 6)))


def _wrapped(value: Any) -> _Persistent:
    return module("Sequential", {}, {"0": value})


def _near(rng: random.Random, value: Any) -> Any:
    """Something of another type, or of the same type a little off."""
    if rng.random() < 0.3:
        return copy.deepcopy(rng.choice([None, True, False, {}, [], (), b"", *WHOLE, *REAL, *TEXT]))
    if isinstance(value, bool):
        return rng.choice((not value, int(value), None, str(value)))
    if isinstance(value, int):
        return rng.choice(
            (value + 1, value - 1, -value, 2 * value, value // 2, float(value), str(value), [value], None)
        )
    if isinstance(value, float):
        return rng.choice((-value, int(value) if value == value and abs(value) < 1e9 else 0, str(value), *REAL))
    if isinstance(value, str):
        return rng.choice((value.upper(), value + "x", value.encode(), [value], rng.choice(CLASSES), None))
    if isinstance(value, bytes):
        place = rng.randrange(len(value)) if value else 0
        flipped = value[:place] + bytes([rng.randrange(256)]) + value[place + 1 :]
        return rng.choice((value[:place], flipped, value + value[-8:], b"", value.decode("latin1")[:200]))
    if isinstance(value, list | tuple):
        return _other_items(rng, value)
    if isinstance(value, _Persistent):
        value.meta["class_name"] = rng.choice(CLASSES)
        return rng.choice((value, value.meta, value.meta.get("state"), [value], None))
    if isinstance(value, Called):
        value.arguments = list(_other_items(rng, value.arguments))
        return value
    if isinstance(value, dict):
        return rng.choice(
            (list(value.items()), list(value), {}, None, {str(i): v for i, v in enumerate(value.values())})
        )
    return rng.choice((*WHOLE, *TEXT))


def _other_items(rng: random.Random, value: list[Any] | tuple[Any, ...]) -> Any:
    items = list(value)
    kind = rng.choice(("near", "near", "drop", "double", "shuffle", "more", "type"))
    place = rng.randrange(len(items)) if items else 0
    if kind == "near" and items:
        items[place] = _near(rng, items[place])
    elif kind == "drop" and items:
        del items[place]
    elif kind == "double" and items:
        items.insert(place, items[place])
    elif kind == "shuffle":
        rng.shuffle(items)
    elif kind == "more":
        items += [rng.choice((0, 1, 2, 2**40))] * rng.choice((1, 3, 60))
    return (items if isinstance(value, tuple) else tuple(items)) if kind == "type" else type(value)(items)


def _other_tensor(rng: random.Random, value: Any) -> Any:
    """A tensor that is valid but not the one expected; or one whose call says what its storage has not."""
    if not isinstance(value, Called) or not value.name.startswith("_rebuild_tensor"):
        return _spell(rng, (rng.choice((0, 1, 2, 7)),))
    size = value.arguments[2] if len(value.arguments) > 3 and isinstance(value.arguments[2], tuple) else (2,)
    size = tuple(n for n in size if isinstance(n, int) and 0 <= n < 64)[:4]
    if rng.random() < 0.5:  # valid
        kind = rng.choice(("like", "like", "like", "like", "row", "axis", "flat", "turned", "scalar"))
        if kind == "row" and size:
            place = rng.randrange(len(size))
            size = (*size[:place], max(size[place] + rng.choice((-1, 1)), 0), *size[place + 1 :])
        elif kind == "axis":
            size = (*size, 1) if rng.random() < 0.5 else (1, *size)
        elif kind == "flat":
            size = (torch.Size(size).numel(),)
        elif kind == "turned":
            size = size[::-1]
        elif kind == "scalar":
            size = ()
        return _spell(rng, size)
    made = Called(value.module, value.name, list(value.arguments))
    place = rng.choice((0, 1, 1, 2, 2, 3, 3))
    if place == 0:
        made.arguments[:1] = _spell(rng, rng.choice(((0,), (1,), (3,), (4096,)))).arguments[:1]
    elif place == 1:
        made.arguments[1:2] = [rng.choice((*WHOLE, 0.0, True, None, "0"))]
    else:
        changed = list(size) or [1]
        changed[rng.randrange(len(changed))] = rng.choice((*WHOLE, True, 1.0, None, "1"))
        made.arguments[place : place + 1] = [tuple(changed)]
    return made


def _spell(rng: random.Random, size: tuple[int, ...]) -> Called:
    dtype = rng.choice((*[torch.float32] * 4, torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.bool))
    made = torch.full(size, rng.choice((0.0, 1.0, -3.0)), dtype=torch.float32)
    if made.numel() and rng.random() < 0.3:
        made.view(-1)[rng.randrange(made.numel())] = rng.choice((float("nan"), float("inf")))
    found = spelled(made.nan_to_num().to(dtype) if not dtype.is_floating_point else made.to(dtype))
    if rng.random() < 0.1:
        found.arguments[5:] = [OrderedDict(x=[1])]
    return found
