"""Which tests of kernels wait for a device."""

import pytest
import torch


@pytest.hookimpl(tryfirst=True)  # before `-m gpu` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the device wait for a device; where there is one, those of Triton run on it, so they are of it too."""
    if torch.cuda.is_available():
        for item in items:
            if "triton" in item.name:
                item.add_marker(pytest.mark.gpu)
    else:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
