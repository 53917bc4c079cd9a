"""The table of addresses by which one launch reaches many tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 8192  # elements of one block
CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # gf_dtype


class Table(NamedTuple):
    """Where the tensors are, cut into chunks."""

    # [8, tensors] int64: addresses of parameters, gradients, exp_avgs, exp_avg_sqs, copies; sizes; kinds (code of the
    # gradient's dtype plus 4 times that of the copy plus 1, 0 without a copy); index into the settings of a step
    rows: Tensor
    chunk_tensor: Tensor  # [chunks] int32
    chunk_start: Tensor  # [chunks] int64
    aligned: bool  # every address is a multiple of 16
    kind: int  # of all tensors, -1 where they differ


def table_of(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: Mapping[int, Tensor],  # by the place of their parameter
    settings: Sequence[int],
) -> Table:
    """The table of these tensors on their device; built again only when an address, dtype or setting has changed."""
    copied = tuple(copies[i].data_ptr() if i in copies else 0 for i in range(len(params)))
    addresses = (*(tuple(t.data_ptr() for t in group) for group in (params, grads, exp_avgs, exp_avg_sqs)), copied)
    kinds = tuple(
        CODES[grad.dtype] + (4 * (CODES[copies[i].dtype] + 1) if i in copies else 0) for i, grad in enumerate(grads)
    )
    return _table(addresses, tuple(t.numel() for t in params), kinds, tuple(settings), params[0].device)


@lru_cache(maxsize=8)  # holds addresses, never tensors: a stale entry is not found again
def _table(
    addresses: tuple[tuple[int, ...], ...],
    sizes: tuple[int, ...],
    kinds: tuple[int, ...],
    settings: tuple[int, ...],
    device: torch.device,
) -> Table:
    tensor, start = _chunks(sizes, device)
    rows = torch.tensor([*addresses, sizes, kinds, settings], dtype=torch.int64).to(device)
    aligned = all(address % 16 == 0 for row in addresses for address in row)
    return Table(rows, tensor, start, aligned, kinds[0] if len(set(kinds)) == 1 else -1)


@lru_cache(maxsize=8)
def _chunks(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    chunks = [(i, start) for i, size in enumerate(sizes) for start in range(0, size, CHUNK)]
    tensor, start = zip(*chunks, strict=True)
    return torch.tensor(tensor, dtype=torch.int32).to(device), torch.tensor(start, dtype=torch.int64).to(device)
