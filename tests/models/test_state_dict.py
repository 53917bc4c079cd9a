"""State dicts: what is read, what is refused, in one sentence each."""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.models.state_dict import (
    batch_norm,
    batch_norm_shapes,
    check_every_name,
    check_state,
    folded,
    read_state_dict,
    read_state_file,
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(4, 2))


def refused(kind: type[GuideFastError], said: str, path: Path, **options: Any) -> None:
    with pytest.raises(kind, match=said) as caught:
        read_state_dict(path, **options)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}], ids=["bare", "wrapped"])
def test_torch_file_gives_its_tensors(network: nn.Module, tmp_path: Path, zipped: bool, wrap: Any) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(network.state_dict()), path, _use_new_zipfile_serialization=zipped)
    tensors, digest = read_state_dict(path, unused=("2.",))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tensors.keys() == {name for name in network.state_dict() if not name.startswith("2.")}
    for name, value in tensors.items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_safetensors_file_gives_its_tensors_without_the_prefix_of_a_parallel_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"module.a.weight": torch.arange(3.0), "module.fc.weight": torch.ones(1)}, path)
    tensors, _ = read_state_dict(path, unused=("fc.",))
    assert tensors.keys() == {"a.weight"}
    assert tensors["a.weight"].tolist() == [0, 1, 2]


def test_expected_hash_is_compared_before_anything_is_read(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_state_dict(path, sha256=digest.upper())[1] == digest
    refused(
        IntegrityError, f"has sha256 {digest[:12]}, aaaaaaaaaaaa was expected; nothing was kept", path, sha256="a" * 64
    )
    with pytest.raises(UsageError, match="'abc' is not 64 hexadecimal digits"):
        read_state_dict(path, sha256="abc")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_torch_file_is_damaged(network: nn.Module, tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(IntegrityError, "get (it|the file) again", path)


@pytest.mark.parametrize("kept", [20, -40])
def test_truncated_safetensors_file_is_damaged(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    refused(IntegrityError, "it is damaged", path)


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_the_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"a": Exploit()}, path, _use_new_zipfile_serialization=zipped)
    refused(RefusedError, "mkdir, which no published checkpoint needs", path)
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3}, "its 'epoch' is no tensor"),
        ([torch.ones(1)], "no dictionary of tensors"),
        (OrderedDict(), "no dictionary of tensors"),
        ({3: torch.ones(1)}, "its '3' is no tensor"),
    ],
    ids=["number", "list", "empty", "numbered"],
)
def test_other_content_is_no_state_dict(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    refused(UsageError, said, path)


def test_other_files_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    refused(UsageError, "does not exist", path)
    refused(UsageError, "is a folder", tmp_path)
    path.write_bytes(b"<html>not found</html>")
    refused(UsageError, "starts with b'<html>no'", path)
    path.write_bytes(b"")
    refused(UsageError, "starts with b''", path)


def test_check_names_the_first_wrong_tensor() -> None:
    state = {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.int32)}
    check_state("a net", state, {"a": (2,)})
    for wanted, said in (
        ({"c": (1,)}, "a net lacks c; get the file again"),
        ({"a": (3,)}, r"a has shape \[2\] where a net has \[3\]"),
        ({"b": (2,)}, r"b holds torch.int32 where a net has floats"),
    ):
        with pytest.raises(IntegrityError, match=said):
            check_state("a net", state, wanted)


def test_every_name_has_to_be_known() -> None:
    state = {"a.weight": torch.ones(2), "a.num_batches_tracked": torch.tensor(3)}
    check_every_name("a net", state, {"a.weight": (2,)})
    for wanted, said in (
        ({}, "the file has a.weight, a net does not; it holds another network"),
        ({"a.weight": (2,), "a.bias": (2,)}, "a net has a.bias, the file does not; get it again"),
        ({"a.weights": (2,)}, r"a net has a.weights, the file does not \(but a.weight\)"),
        ({"a.weight": (3,)}, r"a.weight has shape \[2\] where a net has \[3\]"),
    ):
        with pytest.raises(IntegrityError, match=said):
            check_every_name("a net", state, wanted)
    with pytest.raises(IntegrityError, match=r"the file has c.weight, a net does not \(but a.weight\)"):
        check_every_name("a net", state | {"c.weight": torch.ones(1)}, {"a.weight": (2,)})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("options", [dict, lambda **values: Namespace(**values)], ids=["dict", "namespace"])
def test_what_stands_beside_a_state_dict_is_read_where_asked_for(tmp_path: Path, zipped: bool, options: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    opts = options(kind="e4e", size=1024, rate=0.5, mean=True, device=torch.device("cpu"), steps=None, deep={"a": 1})
    content = {"state_dict": {"a": torch.ones(2)}, "mean": torch.arange(3.0), "opts": opts, "step": 7}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert read_state_dict(path)[0].keys() == {"a"}
    read = read_state_file(path, beside=("mean", "opts", "absent"))
    assert read.tensors.keys() == {"a", "mean"}
    assert read.tensors["mean"].tolist() == [0, 1, 2]
    assert read.settings == {"kind": "e4e", "size": 1024, "rate": 0.5, "mean": True}
    assert read_state_file(path, beside=("step",)).settings == {}


@pytest.mark.parametrize("affine", [True, False])
def test_folded_batch_norm_is_the_same_function(affine: bool) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=0.01, affine=affine))
    with torch.no_grad():
        for name, value in net.named_buffers():
            if not name.endswith("tracked"):
                value.uniform_(0.5, 2)
        for value in net[1].parameters():
            value.uniform_(-1, 1)
    state: dict[str, Tensor] = net.eval().state_dict()
    assert {name: tuple(state[name].shape) for name in batch_norm_shapes("1", 5, affine=affine)} == batch_norm_shapes(
        "1", 5, affine=affine
    )
    x = torch.randn(2, 3, 6, 6)
    weight, bias = folded(state, "0", "1", 0.01)
    assert torch.allclose(nn.functional.conv2d(x, weight, bias), net(x), atol=1e-5)
    scale, shift = batch_norm(state, "1", 0.01)
    y = net[0](x)
    assert torch.allclose((y * scale[:, None, None] + shift[:, None, None]).float(), net[1](y), atol=1e-5)
