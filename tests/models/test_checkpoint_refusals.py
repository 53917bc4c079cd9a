"""Whatever asks for more than a published checkpoint needs is refused in words, soon, in little memory."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import (
    KERNEL,
    eg3d_module,
    module,
    named,
    pickled,
    saved,
    small_rosinality,
    stylegan2_module,
    text,
    write_pickle,
)

from guide_fast.artifacts import write_safetensors
from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.models.checkpoint import read_checkpoint

UNSEEN = {"num_fp16_res": 0, "conv_clamp": None, "mapping": {"lr_multiplier": 0.01}}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        (tmp_path / "file.pkl").write_bytes(data)
        return tmp_path / "file.pkl"

    return write


MALICIOUS = {
    "os.system": named("os", "system") + text("touch hit") + b"\x85R",
    "posix.system": named("posix", "system") + text("touch hit") + b"\x85R",
    "builtins.eval": named("builtins", "eval") + text("open('hit','w')") + b"\x85R",
    "builtins.getattr": named("builtins", "getattr") + named("os", "path") + text("x") + b"\x86R",
    "nested reduce": named("collections", "OrderedDict") + named("os", "system") + text("x") + b"\x85R\x85R",
    "name from the stack": text("os") + text("system") + b"\x93" + text("touch hit") + b"\x85R",
    "dotted name": text("collections") + text("OrderedDict.__class__") + b"\x93)R",
    "numpy.load": named("numpy", "load") + text("x") + b"\x85R",
    "torch.load": named("torch", "load") + text("x") + b"\x85R",
    "state of a class": named("collections", "OrderedDict") + b"}" + text("__init__") + b"Ksb",
    "call of a result": b"}" + b")R",
    "instance of a string": text("os") + b")\x81",
    "extension code": b"\x82\x01",
    "protocol 0 instance": b"(ios\nsystem\n",
    "object operation": b"(" + named("os", "system") + text("x") + b"o",
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickle_is_refused_without_running(
    name: str, file: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GuideFastError) as caught:
        read_checkpoint(file(pickled(MALICIOUS[name])))
    assert isinstance(caught.value, RefusedError | IntegrityError)
    if "." in name:
        assert name in str(caught.value)
    assert not (tmp_path / "hit").exists()


def test_pickle_inside_the_bytes_of_a_storage_is_refused(file: Callable[[bytes], Path]) -> None:
    inner = pickled(MALICIOUS["os.system"])
    body = named("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R"
    with pytest.raises(RefusedError, match=re.escape("os.system")):
        read_checkpoint(file(pickled(body)))


def test_source_text_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    made = stylegan2_module()
    made.meta["module_src"] = f"open({str(tmp_path / 'hit')!r}, 'w')"
    assert read_checkpoint(write_pickle(made, tmp_path / "g.pkl")).family == "stylegan2"
    assert not (tmp_path / "hit").exists()


def legacy(claimed: int, present: int) -> bytes:
    """A torch file of the older form whose one storage claims so many numbers."""
    magic, system = 0x1950A86A20F9469CFC6C, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (magic, 1001, system))
    count = b"\x8a\x08" + struct.pack("<q", claimed)
    identity = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + count + b"tQ"
    return head + pickled(identity) + pickle.dumps(["0"], 2) + struct.pack("<q", claimed) + bytes(4 * present)


@pytest.mark.parametrize("claimed", [2_500_000_000, 1 << 61])
def test_storage_that_claims_more_than_the_file_holds_is_refused(file: Callable[[bytes], Path], claimed: int) -> None:
    with pytest.raises(IntegrityError, match="claims"):
        read_checkpoint(file(legacy(claimed, 100)))
    inner = legacy(claimed, 100)
    body = named("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R"
    with pytest.raises(IntegrityError, match="claims"):
        read_checkpoint(file(pickled(body)))


def test_zip_whose_storage_is_smaller_than_claimed_is_refused(tmp_path: Path) -> None:
    path = saved(small_rosinality(), tmp_path / "r.pt")
    with pytest.raises(IntegrityError, match=r"storage '0' claims 192 bytes, the file has 8"):
        read_checkpoint(rezipped(path, lambda name, data: data[:8] if "/data/" in name else data))


def test_compressed_zip_is_refused(tmp_path: Path) -> None:
    path = saved(small_rosinality(), tmp_path / "r.pt")
    with pytest.raises(RefusedError, match="compressed"):
        read_checkpoint(rezipped(path, lambda _, data: data + bytes(100_000), zipfile.ZIP_DEFLATED))


def test_overlapping_zip_entries_are_refused(tmp_path: Path) -> None:
    path = saved(small_rosinality(), tmp_path / "r.pt")
    data = bytearray(path.read_bytes())
    place, size = data.find(b"PK\x01\x02"), len(data)
    for _ in range(3):  # three entries that each cover half of the file
        struct.pack_into("<II", data, place + 20, size // 2, size // 2)
        struct.pack_into("<I", data, place + 42, 0)
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)
    with pytest.raises(RefusedError, match="overlap"):
        read_checkpoint(path)


def test_numbers_shown_many_times_are_refused(tmp_path: Path) -> None:
    whole = read_checkpoint(write_pickle(stylegan2_module(most=64, base=1024), tmp_path / "g.pkl")).tensors
    one = torch.zeros(64 * 64 * 9)  # every weight of the generator is this storage
    shown = {k: one[: v.numel()].view(v.shape) if v.dim() == 4 else v for k, v in whole.items()}
    path = saved(shown | {f"synthesis.b{4 << i}.resample_filter": KERNEL for i in range(3)}, tmp_path / "s.pt")
    path.with_suffix(".json").write_text(json.dumps(UNSEEN))
    with pytest.raises(RefusedError, match="more than once"):
        read_checkpoint(path)
    path = saved(whole | {"mapping.w_avg": torch.zeros(1).expand(8)}, tmp_path / "s.pt")
    with pytest.raises(IntegrityError, match="reaches past"):
        read_checkpoint(path)


def test_doubling_tuples_cost_nothing(tmp_path: Path, file: Callable[[bytes], Path]) -> None:
    laughs = b"N" + b"2\x86" * 200  # 2^200 leaves
    for body in (laughs, b"}" + laughs + b"Ks", b"}" + text("G_ema") + laughs + b"s"):
        with pytest.raises(GuideFastError):
            read_checkpoint(file(pickled(body)))
    value: Any = ("x",)
    for _ in range(60):
        value = (value, value)
    made = eg3d_module()
    made.meta["state"]["rendering_kwargs"] = {"box_warp": value}
    with pytest.raises(RefusedError, match="without end"):
        read_checkpoint(write_pickle(made, tmp_path / "g.pkl"))
    made = stylegan2_module()
    made.meta["state"]["_modules"]["synthesis"].meta["state"]["img_resolution"] = value
    with pytest.raises(IntegrityError, match="a tuple"):
        read_checkpoint(write_pickle(made, tmp_path / "g.pkl"))


def test_endless_operations_are_refused(file: Callable[[bytes], Path]) -> None:
    with pytest.raises(RefusedError, match="more steps"):
        read_checkpoint(file(pickled(b"}" * 2_100_000)))
    copies = b"(" + b"K\x01" * 50_000 + b"lq\x000" + (named("builtins", "set") + b"h\x00\x85R") * 200
    with pytest.raises(RefusedError, match="more steps"):
        read_checkpoint(file(pickled(copies)))


def test_modules_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    made = stylegan2_module()
    made.meta["state"]["_modules"]["again"] = module("Loop")
    loop = made.meta["state"]["_modules"]["again"].meta["state"]
    children: dict[str, Any] = {}
    for _ in range(40):
        children = {"a": module("Loop", children=children)}
    loop["_modules"] = children
    with pytest.raises(RefusedError, match="nested without end"):
        read_checkpoint(write_pickle(made, tmp_path / "g.pkl"))


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy", "safetensors"])
def test_truncated_file_is_named_so(tmp_path: Path, form: str, part: float) -> None:
    path = tmp_path / "g.pkl"
    if form == "pickle":
        write_pickle(stylegan2_module(), path)
    elif form == "safetensors":
        whole = read_checkpoint(write_pickle(stylegan2_module(), path))
        write_safetensors(path, whole.tensors, "generator", {"config": whole.config, "lineage": []})
    else:
        saved(small_rosinality(), path, zipped=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises((IntegrityError, UsageError) if form == "safetensors" else IntegrityError):
        read_checkpoint(path)


def test_tensorflow_pickle_is_told_the_way(file: Callable[[bytes], Path]) -> None:
    body = named("dnnlib.tflib.network", "Network") + b")\x81"
    with pytest.raises(UsageError, match=re.escape("dnnlib.tflib.network.Network")) as caught:
        read_checkpoint(file(pickled(body)))
    assert "legacy.py" in str(caught.value)


def test_stylegan3_is_refused_by_name(tmp_path: Path) -> None:
    layer = module("SynthesisLayer", {"weight": torch.zeros(2, 2, 3, 3)})
    affine = module("FullyConnectedLayer", {"weight": torch.zeros(4, 8)})
    children = {
        "input": module("SynthesisInput", {"weight": torch.zeros(2, 2)}, {"affine": affine}),
        "L0_36_512": layer,
    }
    made = module("Generator", {}, {"synthesis": module("SynthesisNetwork", {}, children)})
    with pytest.raises(UsageError, match="StyleGAN3"):
        read_checkpoint(write_pickle({"G_ema": made}, tmp_path / "g.pkl"))


OTHERS = {
    b"": "no checkpoint",
    b"<!DOCTYPE html><html>": "web page",
    b"version https://git-lfs.github.com/spec/v1": "Git LFS",
    b"\x89PNG\r\n\x1a\n": "no checkpoint",
    pickle.dumps({"a": 1}): "its keys are a",
    pickle.dumps([1, 2]): "no StyleGAN2 or EG3D generator",
}


@pytest.mark.parametrize("data", OTHERS)
def test_another_kind_of_file_is_named(file: Callable[[bytes], Path], data: bytes) -> None:
    with pytest.raises(UsageError, match=OTHERS[data]):
        read_checkpoint(file(data))


def test_state_dict_of_another_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"another network.*conv1\.weight"):
        read_checkpoint(saved({"conv1.weight": torch.zeros(3)}, tmp_path / "vgg.pt"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing.pkl")


def test_mutated_files_give_clean_errors() -> None:
    """A short run of the fuzzer; a long one is `make fuzz`."""
    command = [sys.executable, str(Path(__file__).with_name("fuzz_checkpoint.py")), "--seconds", "20"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads(ended.stdout)
    assert said["inputs"] >= 400
    answers = {"Published", "Published, not built", "UsageError", "RefusedError", "IntegrityError"}
    assert set(said["answers"]) == answers


def rezipped(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The zip file with each entry changed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    path.write_bytes(stream.getvalue())
    return path
