"""What tests may rely on beyond the repository: a shared folder of fixtures, third-party weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from fake_registry import registry as registry  # a fixture
from torch import Tensor

from guide_fast import assets
from guide_fast.errors import GuideFastError, IntegrityError

if not torch.cuda.is_available():  # Triton's interpreter; it reads this once, when a test first imports triton
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


def absent(reason: str) -> NoReturn:
    """Skip the test for want of something outside the repository; in CI, where it has to be there, fail."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    """Micro-benchmarks run once, untimed, unless `--benchmark-only` asks for their times."""
    if getattr(config.option, "benchmark_only", None) is False:
        config.option.benchmark_disable = True


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: fixtures/ and photos/, for reading only."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        absent("no folder `shared` beside the checkout: its fixtures and photos are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def asset_or_skip() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]:
    """`assets.load`, skipping the test when the weights can neither be read nor fetched."""

    def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return assets.load(name)
        except IntegrityError:
            raise
        except GuideFastError as error:
            absent(str(error))

    return load


@pytest.fixture(scope="session")
def demo_photo() -> Path:
    """The file of the demonstration photo, skipping the test when it can neither be read nor fetched."""
    try:
        return assets.path("demo-photo")
    except IntegrityError:
        raise
    except GuideFastError as error:
        absent(str(error))
