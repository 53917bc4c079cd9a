"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import guide_fast


@pytest.mark.parametrize("name", guide_fast.__all__)
def test_public_name_is_callable(name: str) -> None:
    assert callable(getattr(guide_fast, name))


def test_evaluate_stays_callable_once_its_folder_is_imported() -> None:
    code = "import guide_fast.evaluate; from guide_fast import evaluate; assert callable(evaluate), evaluate"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = guide_fast.no_such_name


def test_names_are_listed_before_they_are_loaded() -> None:
    assert {*guide_fast.__all__, "__version__"} <= set(dir(guide_fast))


def test_version_is_that_of_the_package() -> None:
    assert guide_fast.__version__ == metadata.version("guide-fast")
