"""The picture of ``oml-vit-ext query``: queries and what was found for them, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oml_vit_ext.images.reading import read_image
from oml_vit_ext.pictures.drawing import NEUTRAL, frame, save_figure
from oml_vit_ext.retrieval import Hit, parse_box

FOUND = "#bbbbbb"


def draw_hits(queries: Sequence[Path], found: Sequence[Sequence[Hit]], root: Path, path: Path) -> None:
    """A grid: one query per row, then its hits, nearest first, each with its distance.

    Args:
        queries: Image files.
        found: Per query what was found for it.
        root: Folder that the paths of the hits are relative to.
        path: Where the picture goes.
    """
    columns = 1 + max(map(len, found))
    fig = Figure(figsize=(1.5 * columns, 1.8 * len(queries)))
    axes = fig.subplots(len(queries), columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for row, (query, hits) in enumerate(zip(queries, found, strict=True)):
        _show(axes[row, 0], query, "", NEUTRAL, "query")
        for column, hit in enumerate(hits, start=1):
            _show(axes[row, column], root / hit.path, hit.crop or hit.box, FOUND, f"{hit.distance:.3f}")
    fig.tight_layout()
    save_figure(fig, path)


def _show(ax: Axes, file: Path, box: str, colour: str, title: str) -> None:
    ax.set_title(title, fontsize=8, pad=3)
    try:
        picture = read_image(file)
    except OSError:  # deleted since it was indexed
        ax.text(0.5, 0.5, "file is gone", ha="center", va="center", fontsize=7, transform=ax.transAxes)
        return
    frame(ax, picture.crop(parse_box(box)) if box else picture, colour)
