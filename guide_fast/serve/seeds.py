"""The latent z of a seed, as torch draws it, without torch.

Source: `torch.randn` on a CPU: MT19937, 24-bit uniforms, Box-Muller over halves of sixteen numbers. Logarithm, sine,
cosine are NumPy's, so that the last bits may differ from torch's.
"""

from __future__ import annotations

import numpy as np

from guide_fast.errors import UsageError
from guide_fast.serve.session import Array

_GROUP = 16  # numbers that torch makes together
_LARGEST = 2**63 - 1


def z_of(seed: int, size: int) -> Array:
    """[size] fp32, within 1e-6 of `torch.randn(size, generator=torch.Generator().manual_seed(seed))`.

    Raises UsageError when `seed` cannot start a random generator.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _LARGEST:
        raise UsageError(f"seed {seed!r} is out of range; give a whole number from 0 to {_LARGEST}")
    random = np.random.RandomState(seed & 0xFFFFFFFF)  # torch's engine takes the low half, too
    if size < _GROUP:
        return _one_by_one(random, size)
    uniforms = _uniforms(random, size)
    z = np.empty(size, np.float32)
    whole = size - size % _GROUP
    z[:whole] = _normal(uniforms[:whole])
    if whole < size:  # the last sixteen are drawn anew, over what there is already
        z[-_GROUP:] = _normal(_uniforms(random, _GROUP))
    return z


def _words(random: np.random.RandomState, count: int) -> Array:
    return random.randint(0, 2**32, size=count, dtype=np.uint32)


def _uniforms(random: np.random.RandomState, count: int) -> Array:
    """[0, 1) in steps of 2^-24."""
    return (_words(random, count) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


def _normal(uniforms: Array) -> Array:
    halves = uniforms.reshape(-1, 2, _GROUP // 2)
    radius = np.sqrt(-2 * np.log(1 - halves[:, 0]))
    angle = np.float32(2 * np.pi) * halves[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _one_by_one(random: np.random.RandomState, size: int) -> Array:
    """Fewer than sixteen: pairs in double precision, of 53-bit uniforms."""
    pairs = (size + 1) // 2
    words = _words(random, 4 * pairs).astype(np.uint64).reshape(pairs, 2, 2)
    uniforms = ((words[..., 0] << np.uint64(32) | words[..., 1]) & np.uint64(2**53 - 1)) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log1p(-uniforms[:, 1])), 2 * np.pi * uniforms[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:size].astype(np.float32)
