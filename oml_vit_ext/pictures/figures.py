"""The figures: retrieved images with the model's attention, a re-ranker's before and after, attention across a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from oml_vit_ext.pictures.cross_attention import CrossAttention
from oml_vit_ext.pictures.drawing import (
    NEUTRAL,
    RIGHT,
    WRONG,
    Picture,
    Tile,
    draw_grid,
    enlarge_maps,
    overlay,
    save_figure,
)
from oml_vit_ext.reranking.budget import BudgetCurve


@dataclass(frozen=True)
class Strip:
    """What was retrieved for one query, nearest first. All pictures are ``(H, W, 3)``, values from 0 to 1.

    Attributes:
        query: The query's picture.
        images: The retrieved pictures.
        right: Per retrieved picture whether it belongs to the ground truth.
        scores: Per retrieved picture a number to write above it, e.g. the distance; ``None`` writes nothing.
    """

    query: Picture
    images: Sequence[Picture]
    right: Sequence[bool]
    scores: Sequence[float] | None = None


def draw_strips(before: Sequence[Strip], after: Sequence[Strip], path: Path) -> None:
    """Before and after re-ranking, one query per row; ground truth is framed in green, the rest in red.

    Args:
        before, after: Per query, the queries in one order.
        path: Where the picture goes.
    """
    n_before = max((len(strip.images) for strip in before), default=0)
    rows: list[list[Tile | None]] = []
    for old, new in zip(before, after, strict=True):
        missing = [None] * (n_before - len(old.images))
        rows.append([Tile(old.query), None, *_retrieved(old), *missing, None, *_retrieved(new)])
    headings = {0: "query", 2: "before", 3 + n_before: "after"} if n_before else {0: "query"}
    draw_grid(rows, path, headings)


def draw_attention(strips: Sequence[Strip], maps: Mapping[str, Sequence[Sequence[Tensor]]], path: Path) -> None:
    """Per query a row with it and what was retrieved for it, then for each kind of map a row of the same with the maps.

    Args:
        strips: Per query what was retrieved.
        maps: Name of the map -> per query the maps ``(H, W)`` of the query and of its retrieved pictures.
        path: Where the picture goes.
    """
    rows: list[list[Tile | None]] = []
    for q, strip in enumerate(strips):
        pictures = [strip.query, *strip.images]
        colours = [NEUTRAL, *_colours(strip)]
        rows.append([Tile(strip.query, label="query, retrieved"), None, *_retrieved(strip)])
        for name, of_queries in maps.items():
            drawn = [
                Tile(overlay(picture, pixel_map), colour)
                for picture, pixel_map, colour in zip(pictures, of_queries[q], colours, strict=True)
            ]
            rows.append([Tile(drawn[0].image, label=name.replace("_", " ")), None, *drawn[1:]])
    draw_grid(rows, path)


def draw_cross_attention(pairs: Sequence[tuple[Picture, Picture, CrossAttention, bool]], path: Path) -> None:
    """One pair per row: where each image is looked at by the other, and what one patch of the query looks at.

    That patch is the one which the candidate looks at most.

    Args:
        pairs: Query, candidate, the attention between them, whether the candidate belongs to the ground truth.
        path: Where the picture goes.
    """
    rows: list[list[Tile | None]] = []
    for query, candidate, attention, right in pairs:
        colour = RIGHT if right else WRONG
        top, left = (int(i) for i in torch.unravel_index(attention.on_1.argmax(), attention.on_1.shape))
        height, width = attention.stride
        box = (left * width, top * height, width, height)
        rows.append(
            [
                Tile(query),
                Tile(_laid_over(query, attention.on_1, attention)),
                Tile(query, box=box),
                None,
                Tile(candidate, colour),
                Tile(_laid_over(candidate, attention.on_2, attention), colour),
                Tile(_laid_over(candidate, attention.from_1[top, left], attention), colour),
            ]
        )
    headings = {
        0: "query",
        1: "seen by candidate",
        2: "one patch",
        4: "candidate",
        5: "seen by query",
        6: "by the patch",
    }
    draw_grid(rows, path, headings)


def _laid_over(picture: Picture, patch_map: Tensor, attention: CrossAttention) -> Picture:
    return overlay(picture, enlarge_maps(patch_map[None], (picture.shape[0], picture.shape[1]), attention.stride)[0])


def _colours(strip: Strip) -> list[str]:
    return [RIGHT if right else WRONG for right in strip.right]


def _retrieved(strip: Strip) -> list[Tile]:
    scores = [""] * len(strip.images) if strip.scores is None else [f"{score:.3f}" for score in strip.scores]
    return [
        Tile(image, colour, score) for image, colour, score in zip(strip.images, _colours(strip), scores, strict=True)
    ]


def draw_budget_curve(curve: BudgetCurve, path: Path) -> None:
    """CMC@1 against the share of pairs computed, from the first stage alone to every query re-ranked.

    The straight line between both ends is what re-ranking queries at random would give on average.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5, 3.2), layout="constrained")
    ax = fig.subplots()
    ends = [curve.cmc1[0], curve.cmc1[-1]]
    ax.plot([0, 1], ends, color=NEUTRAL, linestyle="--", linewidth=1, label="queries at random")
    ax.plot(curve.share_of_pairs, curve.cmc1, color=RIGHT, label="closest first distances first")
    ax.set(xlabel="share of the pairs computed", ylabel="CMC@1", xlim=(0, 1))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    save_figure(fig, path)
