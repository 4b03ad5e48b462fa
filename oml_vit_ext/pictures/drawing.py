"""What all figures are made of: framed pictures in a grid, and files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[Any]  # (H, W, 3), values from 0 to 1
RIGHT, WRONG, NEUTRAL = "#2e9e44", "#d64545", "#444444"


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes:
        image: ``(H, W, 3)``, values from 0 to 1.
        colour: Of the frame.
        caption: Above the picture.
        label: Left of the picture.
        box: A rectangle to mark, in pixels: left, top, width, height.
    """

    image: Picture
    colour: str = NEUTRAL
    caption: str = ""
    label: str = ""
    box: tuple[float, float, float, float] | None = None


def draw_grid(rows: Sequence[Sequence[Tile | None]], path: Path, headings: Mapping[int, str] | None = None) -> None:
    """Pictures in rows and columns.

    Args:
        rows: ``None`` leaves a gap; a column of gaps is narrow.
        path: Where the picture goes.
        headings: Column -> what is written above it.

    Raises:
        ValueError: There is nothing to draw.
    """
    n_columns = max(map(len, rows), default=0)
    if n_columns == 0:
        raise ValueError(f"There are no pictures to draw for {path}, expected at least one.")
    is_gap = [all(column >= len(row) or row[column] is None for row in rows) for column in range(n_columns)]
    widths = [0.25 if gap else 1.0 for gap in is_gap]
    fig = Figure(figsize=(1.25 * sum(widths) + 0.3, 1.45 * len(rows) + 0.4), layout="constrained")
    axes = fig.subplots(len(rows), n_columns, squeeze=False, width_ratios=widths)
    for ax in axes.flat:
        ax.axis("off")
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is not None:
                _draw_tile(axes[r, c], tile)
    for column, heading in (headings or {}).items():
        above_the_caption = {"xytext": (0, 14), "textcoords": "offset points"}
        axes[0, column].annotate(
            heading, (0.5, 1), xycoords="axes fraction", **above_the_caption, ha="center", fontsize=8, weight="bold"
        )
    save_figure(fig, path)


def frame(ax: Axes, image: Any, colour: str) -> None:
    """An image with a coloured frame and no ticks."""
    ax.imshow(image)
    ax.axis("on")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=2)


def save_figure(fig: Figure, path: Path) -> None:
    """Write under a temporary name, then rename: a file that is there is whole."""
    unfinished = path.with_name("part_" + path.name)
    fig.savefig(unfinished, dpi=130)
    os.replace(unfinished, path)


def _draw_tile(ax: Axes, tile: Tile) -> None:
    frame(ax, tile.image, tile.colour)
    ax.set_title(tile.caption, fontsize=7, pad=3)
    ax.set_ylabel(tile.label, fontsize=7)
    if tile.box is not None:
        left, top, width, height = tile.box
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor="#00e5ff", linewidth=1.5))
