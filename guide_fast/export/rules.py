"""How the initializers of an exported generator follow from its parameters, without PyTorch.

The exporter makes every initializer by these rules, so that whoever applies them to changed parameters gets the bits
that exporting the changed generator would give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def as_is(value: Array) -> Array:
    """The parameter."""
    return value


def swapped(value: Array) -> Array:
    """[O, I, k, k] -> [I, O, k, k]: what a transposed convolution reads."""
    return value.swapaxes(0, 1)


def pointwise(value: Array) -> Array:
    """[O, I] -> [O, I, 1, 1]: a matrix as a convolution of one pixel."""
    return value[:, :, None, None]


def sum_of_squares(value: Array) -> Array:
    """[O, I, k, k] -> [O, I], summed tap by tap in float64: the same bits on every processor."""
    total = np.zeros(value.shape[:2])
    for tap in value.reshape(*value.shape[:2], -1).transpose(2, 0, 1):
        total += tap.astype(np.float64) ** 2
    return total.astype(np.float32)


RULES: dict[str, Callable[[Array], Array]] = {
    rule.__name__: rule for rule in (as_is, swapped, pointwise, sum_of_squares)
}


@dataclass(frozen=True)
class Rule:
    """One initializer: a function of RULES over a parameter, times `factor`, rounded to `dtype`."""

    source: str  # the parameter's name
    rule: str = "as_is"
    factor: float = 1.0  # of the architecture: equalised learning rates, powers of two that half precision needs
    dtype: str = "float32"

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Rule:
        """From an entry of `refit` in engine.json; a KeyError names what it lacks."""
        return cls(entry["source"], entry["rule"], entry.get("factor", 1.0), entry["dtype"])

    def value(self, weights: Mapping[str, Array]) -> Array:
        """The initializer, dense in row order; raises KeyError where the parameter or the rule is unknown."""
        made = RULES[self.rule](weights[self.source])
        if self.factor != 1:
            made = made * np.asarray(self.factor, made.dtype)
        return np.array(made, dtype=self.dtype, order="C")
