"""What all figures are made of: framed pictures in a grid, and files that are whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.files import replaced

if TYPE_CHECKING:  # matplotlib takes its time to import: functions that draw do it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    from matplotlib.figure import Figure

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
    """Write the figure; the ending of ``path`` is its format.

    Raises:
        OSError: The file cannot be written.
    """
    with replaced(path) as unfinished:
        fig.savefig(unfinished, dpi=130)


def _draw_tile(ax: Axes, tile: Tile) -> None:
    from matplotlib.patches import Rectangle

    frame(ax, tile.image, tile.colour)
    ax.set_title(tile.caption, fontsize=7, pad=3)
    ax.set_ylabel(tile.label, fontsize=7)
    if tile.box is not None:
        left, top, width, height = tile.box
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor="#00e5ff", linewidth=1.5))


_COLOURS = "inferno"
_OPACITY = 0.6


def to_picture(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Picture:
    """A normalised image ``(3, H, W)`` -> ``(H, W, 3)`` with values from 0 to 1."""
    colours = image.detach().float().cpu() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return colours.clamp(0, 1).permute(1, 2, 0).numpy()


def mean_and_std(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What a transform of torchvision or albumentations normalises with; 0 and 1 if it does not normalise."""
    for step in reversed(getattr(transform, "transforms", ())):
        if hasattr(step, "mean") and hasattr(step, "std"):
            return tuple(map(float, step.mean)), tuple(map(float, step.std))
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def enlarge_maps(maps: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Maps over patches ``(B, h, w)`` -> maps over pixels ``(B, H, W)``, bilinear.

    Args:
        maps: From the patches of images that were enlarged to whole patches, as all extractors here do it.
        size: H and W of the images before that.
        stride: Pixels per patch, vertically and horizontally.

    Raises:
        ValueError: The maps are not those of images of this size.
    """
    whole = (maps.shape[1] * stride[0], maps.shape[2] * stride[1])
    if not all(0 <= large - side < step for large, side, step in zip(whole, size, stride, strict=True)):
        raise ValueError(
            f"Maps of {maps.shape[1]} x {maps.shape[2]} patches of {stride[0]} x {stride[1]} pixels do not belong to "
            f"images of {size[0]} x {size[1]} pixels: expected the map of the image itself."
        )
    return F.interpolate(maps[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def overlay(picture: Picture, pixel_map: Tensor) -> Picture:
    """A map ``(H, W)`` in colours over a picture ``(H, W, 3)`` in grey, dark is its minimum and yellow its maximum.

    Each map has its own scale: colours compare places within one picture, not pictures.
    """
    import matplotlib

    values = pixel_map.detach().float().cpu().numpy()
    lowest, highest = values.min(), values.max()
    shares = (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)
    colours = matplotlib.colormaps[_COLOURS](shares)[..., :3]
    return (1 - _OPACITY) * picture.mean(axis=-1, keepdims=True) + _OPACITY * colours
