"""The pictures of the demo: hits before and after, what re-ranking changed, how many dimensions embeddings use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.commands.retrieved_images import RetrievedImages, right_ones, spread
from oml_vit_ext.pictures import NEUTRAL, RIGHT, WRONG, Tile, draw_grid, save_figure

TOP = 5


def draw_before_and_after(
    images: RetrievedImages,
    results: dict[str, RetrievalResults],
    queries: dict[int, str],
    path: Path,
) -> None:
    """One query per row, and what each of two models retrieves for it; green: the query's product, red: another.

    Args:
        images: The validation photos.
        results: What is written above the hits -> the hits, for two models.
        queries: Number of a query -> what is written beside it.
        path: Where the picture goes.
    """
    rows: list[list[Tile | None]] = []
    for query, label in queries.items():
        row: list[Tile | None] = []
        for result in results.values():
            ids = images.ids(result, query, TOP)
            if not row:
                row.append(Tile(images.picture(ids[0]), NEUTRAL, label=label))
            right = right_ones(result, query)[:TOP].tolist()
            hits = [Tile(images.picture(i), RIGHT if r else WRONG) for i, r in zip(ids[1:], right, strict=True)]
            row += [None, *hits, *[None] * (TOP - len(hits))]
        rows.append(row)
    columns = (2 + TOP // 2 + i * (TOP + 1) for i in range(len(results)))
    draw_grid(rows, path, {0: "query", **dict(zip(columns, results, strict=True))})


def evenly(images: RetrievedImages, n: int) -> dict[int, str]:
    """Queries of products that lie evenly over all of them, each time another of their photos, with their names."""
    df = images.dataset.df.reset_index(drop=True)
    of_label = [group.index.tolist() for _, group in df[df.is_query.astype(bool)].groupby("label")]
    chosen = [rows[(3 * i) % len(rows)] for i, rows in enumerate(spread(of_label, n))]
    position = {int(row): q for q, row in enumerate(images.dataset.get_query_ids().reshape(-1))}
    return {position[row]: df.label_name[row].replace("-", " ")[:20] for row in chosen}


def first_is_right(results: RetrievalResults) -> list[bool]:
    return [bool(right_ones(results, q)[:1].any()) for q in range(len(results.retrieved_ids))]


def changed(before: RetrievalResults, after: RetrievalResults) -> dict[str, list[int]]:
    """The queries whose first hit became right, and those whose first hit became wrong."""
    was, now = first_is_right(before), first_is_right(after)
    pairs = list(enumerate(zip(was, now, strict=True)))
    return {
        "became right": [q for q, (old, new) in pairs if new and not old],
        "became wrong": [q for q, (old, new) in pairs if old and not new],
    }


def draw_of_each(queries: dict[str, list[int]], n: int, seed: int = 0) -> dict[int, str]:
    """At most ``n`` queries of each kind, drawn at random, with their kind."""
    rng = np.random.default_rng(seed)
    return {
        q: kind for kind, of_kind in queries.items() for q in sorted(rng.permutation(of_kind)[:n].astype(int).tolist())
    }


def draw_spectrum(embeddings: dict[str, Tensor], path: Path) -> None:
    """Share of the variance in the first k principal components, one curve per model.

    A model whose curve jumps up uses few dimensions: the collapse that IRT's entropy regulariser is against.

    Args:
        embeddings: Model name -> embeddings ``(images, D)``.
        path: Where the picture goes.
    """
    fig = Figure(figsize=(5, 3.2))
    ax = fig.subplots()
    for model, vectors in embeddings.items():
        energy = cumulative_energy(vectors)
        ax.plot(range(1, len(energy) + 1), energy.tolist(), label=model)
    ax.axhline(0.9, color="#999999", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="principal components", ylabel="share of the variance", ylim=(0, 1.02))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    save_figure(fig, path)


def cumulative_energy(embeddings: Tensor) -> Tensor:
    """Cumulative share of the variance by principal component, ``(images, D)`` -> ``(D,)``, ending at 1."""
    variances = torch.linalg.svdvals(embeddings.double() - embeddings.double().mean(dim=0)) ** 2
    return variances.cumsum(0) / variances.sum()
