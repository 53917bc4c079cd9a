"""What is computed once is read afterwards, unless its file is damaged or another's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.derived import derived

KIND = "sample bank"


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> dict[str, Tensor]:
        self.asked += 1
        return {"a": torch.arange(6.0).reshape(2, 3), "error": torch.tensor(0.25, dtype=torch.float64)}


@pytest.fixture
def make() -> Maker:
    return Maker()


def assert_made(tensors: dict[str, Tensor]) -> None:
    expected = Maker()()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def get(folder: Path | None, make: Maker, **key: Any) -> dict[str, Tensor]:
    return derived(folder, "bank-256", KIND, {"seed": 1} | key, make)


def test_second_time_comes_from_the_file(tmp_path: Path, make: Maker) -> None:
    assert_made(get(tmp_path / "new", make))
    assert_made(get(tmp_path / "new", make))
    assert make.asked == 1
    (file,) = (tmp_path / "new").iterdir()
    assert file.name.startswith("bank-256-")


def test_first_time_has_the_memory_layout_of_the_second(tmp_path: Path) -> None:
    def make() -> dict[str, Tensor]:
        return {"a": torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)}

    first, second, alone = (derived(folder, "a", KIND, {}, make)["a"] for folder in (tmp_path, tmp_path, None))
    assert first.stride() == second.stride() == alone.stride() == (60, 20, 5, 1)


def test_without_a_folder_nothing_is_kept(make: Maker) -> None:
    assert_made(get(None, make))
    assert_made(get(None, make))
    assert make.asked == 2


def test_other_keys_have_other_files(tmp_path: Path, make: Maker) -> None:
    get(tmp_path, make)
    get(tmp_path, make, seed=2)
    get(tmp_path, make, network=["x", "0" * 64])
    assert make.asked == 3
    assert len(list(tmp_path.iterdir())) == 3


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def give_another_key(path: Path) -> None:
    tensors, metadata = read_safetensors(path, KIND)
    write_safetensors(path, tensors, KIND, metadata | {"key": {"seed": 3}})


def forget_the_hash(path: Path) -> None:
    tensors, metadata = read_safetensors(path, KIND)
    write_safetensors(path, tensors, KIND, {"key": metadata["key"]})


@pytest.mark.parametrize(
    "harm", [flip_a_bit, cut_short, give_another_key, forget_the_hash], ids=lambda harm: harm.__name__
)
def test_harmed_file_is_made_anew_with_a_note(
    harm: Callable[[Path], None], tmp_path: Path, make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    get(tmp_path, make)
    (file,) = tmp_path.iterdir()
    harm(file)
    with caplog.at_level(logging.WARNING):
        assert_made(get(tmp_path, make))
    assert make.asked == 2
    assert "made anew" in caplog.text
    assert str(file) in caplog.text
    assert_made(get(tmp_path, make))
    assert make.asked == 2, "the harmed file was not replaced"


def test_folder_that_cannot_be_written_costs_a_note(
    tmp_path: Path, make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert_made(get(tmp_path / "file" / "cache", make))
    assert "not cached" in caplog.text
