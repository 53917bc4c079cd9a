"""One picture of the person, its neighbours, some bystanders: before above, after below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from guide_fast.artifacts import write_bytes
from guide_fast.errors import UsageError
from guide_fast.evaluate.thumbnails import Pair, choose, shrink

CELL = 128  # px; 24 cells of incompressible noise still make less than 1.5 MB of PNG
GAP, GROUP_GAP, MARGIN = 4, 20, 12
ROW_LABEL, HEADER, FOOTER = 62, 30, 26
INK, FAINT, PAPER = (24, 24, 27), (95, 95, 102), (255, 255, 255)


@dataclass(frozen=True)
class _Column:
    group: str  # heading above the first column of a group
    before: Tensor | None  # uint8 [3, S, S]
    after: Tensor
    caption: str


def write_grid(
    folder: Path,
    thumbnails: Sequence[Pair],
    *,
    target: Tensor | None = None,  # [3, R, R] in [-1, 1], where the person was sent
) -> Path:
    """Write `grid.png` (below 1.5 MB) into `folder`; returns its path. Raises GuideFastError when the disk refuses."""
    buffer = io.BytesIO()
    draw_grid(thumbnails, target=target).save(buffer, "PNG", optimize=True)
    path = Path(folder) / "grid.png"
    write_bytes(path, buffer.getvalue())
    return path


def draw_grid(
    thumbnails: Sequence[Pair],
    *,
    target: Tensor | None = None,  # [3, R, R] in [-1, 1]
) -> Image.Image:
    """The person, target, up to 4 neighbours, up to 6 bystanders; below each the judge's similarity of its two images.

    Raises UsageError when there is no person among the thumbnails.
    """
    columns = _columns(thumbnails, target)
    lefts, x = [], MARGIN + ROW_LABEL
    for i, column in enumerate(columns):
        if i:
            x += CELL + (GAP if column.group == columns[i - 1].group else GROUP_GAP)
        lefts.append(x)
    rows = (MARGIN + HEADER, MARGIN + HEADER + CELL + GAP)
    image = Image.new("RGB", (x + CELL + MARGIN, rows[1] + CELL + FOOTER + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    for top, label in zip(rows, ("before", "after"), strict=True):
        pen.text((MARGIN, top + CELL // 2), label, INK, _font(16), anchor="lm")
    for i, (left, column) in enumerate(zip(lefts, columns, strict=True)):
        if not i or column.group != columns[i - 1].group:
            pen.text((left, MARGIN + HEADER - 10), column.group, INK, _font(16), anchor="ls")
        for top, cell in zip(rows, (column.before, column.after), strict=True):
            if cell is not None:
                image.paste(picture(cell).resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
        pen.text((left + CELL // 2, rows[1] + CELL + 8), column.caption, FAINT, _font(14), anchor="mt")
    return image


def picture(thumbnail: Tensor) -> Image.Image:
    """uint8 [3, S, S] -> an RGB image."""
    return Image.fromarray(thumbnail.permute(1, 2, 0).contiguous().numpy())


def target_thumbnail(target: Tensor, size: int) -> Tensor:
    """[3, R, R] in [-1, 1] -> uint8 [3, size, size]."""
    if target.ndim != 3 or target.shape[0] != 3 or target.dtype == torch.uint8:
        raise UsageError(f"the target image is {target.dtype} {list(target.shape)}; give [3, R, R] floats in [-1, 1]")
    return shrink(target[None], size)[0]


def _columns(thumbnails: Sequence[Pair], target: Tensor | None) -> list[_Column]:
    shown = choose(tuple(thumbnails))
    if not shown or shown[0].kind != "person":
        raise UsageError("no thumbnail of the person to draw; pass Evaluation.thumbnails whole")
    groups = {"person": "the person", "neighbour": "neighbours", "bystander": "other people"}
    columns = [
        _Column(
            groups[pair.kind],
            pair.before,
            pair.after,
            f"{pair.similarity:.2f}" + (" (worst)" if pair.most_changed else ""),
        )
        for pair in shown
    ]
    if target is not None:
        columns.insert(1, _Column("target", None, target_thumbnail(target, CELL), "sent here"))
    return columns


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # its fonts travel with it; the system may have none

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
