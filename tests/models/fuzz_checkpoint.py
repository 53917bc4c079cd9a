"""Mutated checkpoints: whatever the bytes, the door answers with a generator or a clean error, soon, in little memory.

    python tests/models/fuzz_checkpoint.py --seconds 600

Mutates bytes, pickle operations, what pickles describe (mutate_checkpoint.py) of made checkpoints, of published ones
where `--fixtures` names a folder of them. Prints one JSON object; ends with 1 at the first finding, keeping the input
that led to it.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickletools
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import torch
from hypothesis import strategies as st

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from checkpoint_answers import answer
from mutate_checkpoint import mutated
from published_files import eg3d_module, named, small_rosinality, stylegan2_module, text, write_pickle

from guide_fast.artifacts import write_safetensors
from guide_fast.models.checkpoint import read_checkpoint

SLOWEST = 5.0  # seconds for one input
SPARE_MEMORY = 512 << 20  # bytes on top of what the libraries take
BATCH = 400
UNSEEN = {"num_fp16_res": 1, "conv_clamp": 256, "mapping": {"lr_multiplier": 0.01}}
SMALL = 1 << 20  # bytes of a file that still takes part

# Operations put into a pickle at a random place.
SNIPPETS = [
    named("os", "system") + text("true") + b"\x85R",
    named("builtins", "eval") + text("1") + b"\x85R",
    named("builtins", "getattr"),
    named("collections", "OrderedDict") + b")R",
    named("torch", "FloatStorage") + b")R",
    named("torch._utils", "_rebuild_tensor_v2") + b")R",
    named("torch.storage", "_load_from_bytes") + b"C\x02\x80\x02\x85R",
    named("numpy", "dtype") + text("f8") + b"\x85R",
    named("numpy.core.multiarray", "scalar") + b")R",
    named("argparse", "Namespace") + b")\x81",
    text("L0_36_512_14"),
    b"\x8b\xff\xff\xff\x7f",
    b"\x8e" + b"\xff" * 8,
    b"B\xff\xff\xff\xff",
    b"\x8a\x10" + b"\x7f" * 16,
    b"G\x7f\xf0\x00\x00\x00\x00\x00\x00",  # infinity
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    *(bytes([code]) for code in b"()]}0NR\x81bQaesu12.\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94tld"),
    *(b"h" + bytes([place]) for place in range(0, 64, 7)),
    b"(" + b"N" * 50 + b"t",
    b"]" * 300,
    b"2\x86" * 60,  # 2^60 leaves through shared tuples
    b"2\x86" * 60 + b"N\x86" + b"}" + b"2\x86",
]


def _opcodes(data: bytes) -> list[int]:
    """Where each operation of the first pickle starts; as far as it can be parsed."""
    places = []
    try:
        for _, _, place in pickletools.genops(data):
            places.append(place)
    except Exception:  # whatever a damaged pickle makes of the parser
        pass
    return places


def _resealed(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The zip file with its pickle changed, everything around it valid."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.endswith("data.pkl") else content)
    return stream.getvalue()


def _mutated_operations(draw: st.DrawFn, data: bytes) -> bytes:
    places = _opcodes(data)
    if len(places) < 4:
        return data
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(places) - 2))
        start, end = places[i], places[i + 1]
        kind = draw(st.sampled_from(("drop", "double", "put", "swap", "replace", "move")))
        if kind == "drop":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:end] * draw(st.sampled_from((1, 2, 40))) + data[end:]
        elif kind == "put":
            data = data[:start] + draw(st.sampled_from(SNIPPETS)) + data[start:]
        elif kind == "replace":
            data = data[:start] + draw(st.sampled_from(SNIPPETS)) + data[end:]
        else:
            j = draw(st.integers(0, len(places) - 2))
            other = data[places[j] : places[j + 1]]
            data = data[:start] + other + data[end if kind == "swap" else start :]
        places = [place for place in _opcodes(data) if place < len(data)]
        if len(places) < 4:
            break
    return data


def _mutated_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        # half of the places near either end, where headers lie
        edge = min(len(data), 2048)
        where = draw(st.sampled_from(("any", "front", "back")))
        place = draw(st.integers(0, (edge if where != "any" else len(data)) - 1))
        place = len(data) - 1 - place if where == "back" else place
        kind = draw(st.sampled_from(("set", "flip", "cut", "put", "end", "double", "word")))
        length = draw(st.integers(1, 64))
        if kind == "set":
            data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
        elif kind == "flip":
            data = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place] + data[place + length :]
        elif kind == "put":
            data = data[:place] + draw(st.binary(max_size=32)) + data[place:]
        elif kind == "end":
            data = data[:place]
        elif kind == "double":
            data = data[: place + length] + data[place:]
        else:
            word = draw(st.sampled_from((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)))
            data = data[:place] + word.to_bytes(8, "little") + data[place + 8 :]
    return data


@st.composite
def inputs(draw: st.DrawFn, seeds: list[bytes], scratch: Path) -> bytes:
    """A mutated seed."""
    if draw(st.sampled_from((True, False, False))):
        return mutated(random.Random(draw(st.integers(0, 2**63))), scratch)
    data = draw(st.sampled_from(seeds))
    if draw(st.booleans()):
        if data[:2] == b"PK":
            data = _resealed(data, lambda content: _mutated_operations(draw, content))
        elif data[:1] == b"\x80":
            data = _mutated_operations(draw, data)
    if draw(st.sampled_from((True, False, False))):
        data = _mutated_bytes(draw, data)
    return data


def made_seeds(folder: Path) -> list[bytes]:
    """One small file of each format."""
    persistent = {"G": None, "D": None, "G_ema": stylegan2_module(half=1), "training_set_kwargs": {"x": (1, 2.5)}}
    seeds = [write_pickle({"G_ema": eg3d_module()}, folder / "seed.pkl").read_bytes()]
    seeds.append(write_pickle(persistent, folder / "seed.pkl").read_bytes())
    published = read_checkpoint(folder / "seed.pkl")
    published = read_checkpoint(folder / "seed.pkl")
    for zipped in (True, False):
        for value in (small_rosinality(), {"G_ema": published.tensors}):
            torch.save(value, folder / "seed.pt", _use_new_zipfile_serialization=zipped)
            seeds.append((folder / "seed.pt").read_bytes())
    metadata = {"config": published.config, "lineage": []}
    write_safetensors(folder / "seed.safetensors", published.tensors, "generator", metadata)
    return [*seeds, (folder / "seed.safetensors").read_bytes()]


def main() -> int:
    """Fuzz for the seconds asked for; 0 when nothing but generators or clean errors came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixtures", type=Path, help="a folder with published checkpoints to mutate, too")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where findings go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: collections.Counter[str] = collections.Counter()
    slowest, start = [0.0], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = made_seeds(folder)
        # what a state dict does not tell; every input is called `input`
        (folder / "input.json").write_text(json.dumps(UNSEEN))
        if options.fixtures:
            seeds += [f.read_bytes() for f in sorted(options.fixtures.glob("*.pkl")) if f.stat().st_size < SMALL]
        for data in seeds:
            (folder / "input").write_bytes(data)
            answer(folder / "input")  # libraries load what they load lazily before memory is counted
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + SPARE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        def check(data: bytes) -> None:
            (folder / "input").write_bytes(data)
            began = time.monotonic()
            counts[answer(folder / "input")] += 1
            took = time.monotonic() - began
            slowest[0] = max(slowest[0], took)
            assert took < SLOWEST, f"took {took:.1f} s"

        run = 0
        while time.monotonic() - start < options.seconds:
            one_batch = hypothesis.settings(
                max_examples=BATCH,
                deadline=None,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )(hypothesis.seed(options.seed * 1_000_003 + run)(hypothesis.given(inputs(seeds, folder / "made"))(check)))
            try:
                one_batch()
            except BaseException:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / "finding").write_bytes((folder / "input").read_bytes())
                sys.stderr.write(f"finding kept as {options.keep / 'finding'}\n")
                raise
            run += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    seconds = round(time.monotonic() - start, 1)
    total = sum(counts.values())
    said = {"inputs": total, "answers": counts, "seconds": seconds, "slowest_s": round(slowest[0], 2), "peak_mib": peak}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
