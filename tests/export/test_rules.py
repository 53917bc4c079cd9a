"""Rules make initializers from parameters, the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guide_fast.export.rules import RULES, Rule

WEIGHT = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)


def test_swapped_is_what_a_transposed_convolution_reads() -> None:
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(Rule("w", "swapped").value({"w": WEIGHT}))
    expected = torch.nn.functional.conv_transpose2d(x, torch.from_numpy(WEIGHT).transpose(0, 1), stride=2)
    assert torch.equal(torch.nn.functional.conv_transpose2d(x, kernel, stride=2), expected)


def test_sum_of_squares_is_rounded_once() -> None:
    exact = (WEIGHT.astype(np.longdouble) ** 2).sum(axis=(2, 3))
    found = RULES["sum_of_squares"](WEIGHT)
    assert found.shape == (5, 3)
    assert found.dtype == np.float32
    assert np.array_equal(found, exact.astype(np.float32))


def test_pointwise_is_the_matrix_as_a_convolution() -> None:
    matrix = WEIGHT[:, :, 0, 0]
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    kernel = torch.from_numpy(Rule("w", "pointwise").value({"w": matrix}))
    expected = torch.einsum("oi,nihw->nohw", torch.from_numpy(matrix), x)
    assert torch.allclose(torch.nn.functional.conv2d(x, kernel), expected, atol=1e-6)


def test_a_factor_multiplies_in_float32_before_rounding_to_half() -> None:
    found = Rule("w", "as_is", 1 / 3, "float16").value({"w": WEIGHT})
    assert found.dtype == np.float16
    assert np.array_equal(found, (WEIGHT * np.float32(1 / 3)).astype(np.float16))


def test_values_are_dense_and_apart_from_the_parameter() -> None:
    for name in ("as_is", "swapped", "sum_of_squares"):
        value = Rule("w", name).value({"w": WEIGHT})
        assert value.flags.c_contiguous
        assert not np.shares_memory(value, WEIGHT)


def test_an_entry_makes_the_rule_that_made_it() -> None:
    entry = {"part": "p", "tensor": "t", "source": "w", "rule": "swapped", "factor": 0.5, "dtype": "float16"}
    assert Rule.from_entry(entry) == Rule("w", "swapped", 0.5, "float16")
    with pytest.raises(KeyError, match="dtype"):
        Rule.from_entry({"source": "w", "rule": "as_is"})


def test_unknown_names_are_key_errors() -> None:
    with pytest.raises(KeyError, match="'v'"):
        Rule("v").value({"w": WEIGHT})
    with pytest.raises(KeyError, match="'no_rule'"):
        Rule("w", "no_rule").value({"w": WEIGHT})
