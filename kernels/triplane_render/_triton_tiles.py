"""What one program of the backward kernels of triplane_render in Triton takes."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """A program's share; where products come from shared memory (wgmma, tcgen05) they have 64 rows at least."""

    samples: int  # of one ray or of several
    warps: int
    units: int = 0  # hidden units whose weights' gradients it holds
    registers: int | None = None  # of a thread, at most

    @property
    def launch(self) -> dict[str, int]:
        """Options of the compiler."""
        return {"num_warps": self.warps, "num_stages": 1} | ({"maxnreg": self.registers} if self.registers else {})


VALUES = Tile(64, 8)


def planes_tile(half: bool, wide: bool, fixed: bool) -> Tile:
    """For the gradient of the planes; `wide`: products from shared memory, `fixed`: sums of integers."""
    if half:
        return Tile(64 if wide else 32, 8)
    # left to choose, the assembler spills a few registers of the integer sums to fit one program more
    return Tile(16, 4, registers=168 if fixed else None)


def weights_tile(half: bool, wide: bool) -> Tile:
    """For the decoder's gradient: all 64 hidden units where they fit, so that samples are made once."""
    return Tile(64, 8, units=64) if half and wide else Tile(32, 4, units=16)
