"""The two pictures of the demo: what is retrieved, and how many dimensions the descriptors use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from oml_vit_ext.images.reading import read_image
from oml_vit_ext.pictures import NEUTRAL, RIGHT, WRONG, frame, save_figure


def draw_retrieval(
    retrieved: dict[str, list[list[int]]], df: pd.DataFrame, root: Path, path: Path, n_queries: int = 8, top: int = 5
) -> None:
    """A grid: one query per row, one model after the other with its nearest drawings, right ones framed in green.

    Args:
        retrieved: Model name -> per query the retrieved row numbers of ``df``, nearest first.
        df: The validation rows, with ``label``, ``path`` and ``label_name``.
        root: Folder that the paths are relative to.
        path: Where the picture goes.
    """
    queries = _spread_queries(df, n_queries)
    models = list(retrieved)
    columns = 1 + sum(1 + top for _ in models)  # a gap before each model
    fig = Figure(figsize=(0.55 * columns, 0.68 * n_queries + 0.4))
    axes = fig.subplots(n_queries, columns)
    fig.subplots_adjust(left=0.04, right=0.99, bottom=0.01, top=0.92, wspace=0.1, hspace=0.25)
    for ax in axes.flat:
        ax.axis("off")
    for row, query in enumerate(queries):
        frame(axes[row, 0], read_image(root / df.path[query]), NEUTRAL)
        axes[row, 0].set_title(df.label_name[query].replace("-", " ")[:18], fontsize=6, pad=2)
        for m, model in enumerate(models):
            for rank, item in enumerate(retrieved[model][query][:top]):
                ax = axes[row, 2 + m * (top + 1) + rank]
                is_right = df.label[item] == df.label[query]
                frame(ax, read_image(root / df.path[item]), RIGHT if is_right else WRONG)
    for m, model in enumerate(models):
        box = axes[0, 2 + m * (top + 1) + top // 2].get_position()
        fig.text((box.x0 + box.x1) / 2, 0.945, model, ha="center", fontsize=9, weight="bold")
    save_figure(fig, path)


def _spread_queries(df: pd.DataFrame, n: int) -> list[int]:
    """Row numbers of labels that lie evenly over the data, each time another of their drawings."""
    rows = [group.index.tolist() for _, group in df.groupby("label")]
    chosen = [rows[round(i * (len(rows) - 1) / max(1, n - 1))] for i in range(n)]
    return [drawings[i % len(drawings)] for i, drawings in enumerate(chosen)]


def draw_spectrum(embeddings: dict[str, Tensor], path: Path) -> None:
    """Share of the variance in the first k principal components, one curve per model.

    A model whose curve jumps up uses few dimensions: the collapse that IRT's entropy regulariser is against.

    Args:
        embeddings: Model name -> descriptors ``(images, D)``.
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
