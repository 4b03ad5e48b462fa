"""The figure that helps to choose a re-ranker's budget."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from oml_vit_ext.pictures.drawing import NEUTRAL, RIGHT, save_figure
from oml_vit_ext.reranking.budget import BudgetCurve


def draw_budget_curve(curve: BudgetCurve, path: Path) -> None:
    """CMC@1 against the share of pairs computed, from the first stage alone to every query re-ranked.

    The straight line between both ends is what re-ranking queries at random would give on average.
    """
    fig = Figure(figsize=(5, 3.2), layout="constrained")
    ax = fig.subplots()
    ends = [curve.cmc1[0], curve.cmc1[-1]]
    ax.plot([0, 1], ends, color=NEUTRAL, linestyle="--", linewidth=1, label="queries at random")
    ax.plot(curve.share_of_pairs, curve.cmc1, color=RIGHT, label="closest first distances first")
    ax.set(xlabel="share of the pairs computed", ylabel="CMC@1", xlim=(0, 1))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    save_figure(fig, path)
