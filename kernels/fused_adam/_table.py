"""The table of addresses by which one launch reaches many tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 8192  # elements of one block


class Table(NamedTuple):
    """Where the tensors are, cut into chunks."""

    rows: Tensor  # [6, tensors] int64: addresses of parameters, gradients, exp_avgs, exp_avg_sqs, copies; sizes
    chunk_tensor: Tensor  # [chunks] int32
    chunk_start: Tensor  # [chunks] int64
    aligned: bool  # every address is a multiple of 16


def table_of(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
) -> Table:
    """The table of these tensors on their device; built again only when an address has changed."""
    copied = tuple(t.data_ptr() for t in copies) or (0,) * len(params)
    addresses = (*(tuple(t.data_ptr() for t in group) for group in (params, grads, exp_avgs, exp_avg_sqs)), copied)
    return _table(addresses, tuple(t.numel() for t in params), params[0].device)


@lru_cache(maxsize=8)  # holds addresses, never tensors: a stale entry is not found again
def _table(addresses: tuple[tuple[int, ...], ...], sizes: tuple[int, ...], device: torch.device) -> Table:
    tensor, start = _chunks(sizes, device)
    rows = torch.tensor([*addresses, sizes], dtype=torch.int64).to(device)
    return Table(rows, tensor, start, all(address % 16 == 0 for row in addresses for address in row))


@lru_cache(maxsize=8)
def _chunks(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    chunks = [(i, start) for i, size in enumerate(sizes) for start in range(0, size, CHUNK)]
    tensor, start = zip(*chunks, strict=True)
    return torch.tensor(tensor, dtype=torch.int32).to(device), torch.tensor(start, dtype=torch.int64).to(device)
