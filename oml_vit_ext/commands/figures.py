"""How well a model of a config retrieves the validation photos: figures, and how two models are compared in words."""

from __future__ import annotations

from typing import Any

import pandas as pd
from omegaconf import DictConfig

from oml_vit_ext.common.messages import counted

SHOWN = {"cmc": "CMC", "map": "MAP", "precision": "P"}
Figures = dict[str, dict[int, float]]  # metric -> rank -> value


def figures_of(cfg: DictConfig, extractor: dict[str, Any]) -> Figures:
    """The metrics of ``cfg.metric_args`` on the validation photos of ``cfg``, for an extractor ``{name, args}``."""
    from oml.metrics.embeddings import calc_retrieval_metrics_rr
    from oml.registry.models import get_extractor_by_cfg

    from oml_vit_ext.commands.retrieved_images import RetrievedImages, device_of

    ranks = ranks_of(cfg)
    images = RetrievedImages(cfg)
    model = get_extractor_by_cfg(extractor).to(device_of(cfg)).eval()
    found = images.retrieve(model, n_items=min(max(map(max, ranks.values())), n_gallery(images)))
    top_k = {f"{name}_top_k": tuple(ranks.get(name, ())) for name in SHOWN}
    return reduced(calc_retrieval_metrics_rr(found, verbose=False, **top_k))  # type: ignore[arg-type]


def ranks_of(cfg: DictConfig) -> dict[str, list[int]]:
    """Of each metric the ranks that a config asks for; CMC@1 if it asks for none."""
    wanted = cfg.get("metric_args") or {}
    found = {name: [int(k) for k in wanted.get(f"{name}_top_k") or []] for name in SHOWN}
    return {name: ks for name, ks in found.items() if ks} or {"cmc": [1]}


def n_gallery(images: Any) -> int:
    return len(images.dataset.get_gallery_ids())


def reduced(metrics: Any) -> Figures:
    """OML's metrics as plain numbers."""
    return {name: {k: float(v) for k, v in metrics[name].items()} for name in SHOWN if metrics.get(name)}


def table(rows: dict[str, Figures], n_to_find: int | None = None) -> str:
    """One line for each row, one column for each metric.

    Args:
        rows: Name of a line -> its figures.
        n_to_find: Images that a query can find. A CMC over as many hits or more is 1 whatever the model does: it is
            left open, and a line says so.
    """
    lines = [{(n, k): value for n, of in figures.items() for k, value in of.items()} for figures in rows.values()]
    empty = [(n, k) for n, k in lines[0] if n == "cmc" and n_to_find is not None and k >= n_to_find]
    named = [
        {f"{SHOWN[n]}@{k}": "–" if (n, k) in empty else f"{v:.4f}" for (n, k), v in line.items()} for line in lines
    ]
    text: str = pd.DataFrame(named, index=list(rows)).to_string()
    if empty:
        which = ", ".join(f"{SHOWN[n]}@{k}" for n, k in empty)
        few = counted(n_to_find or 0, "photo is", "photos are")
        text += f"\n{which}: only {few} there to be found, so this would be 1 for any model."
    return text


def verdict(before: Figures, after: Figures) -> str:
    """In one sentence, whether the model became better, by the first metric."""
    name, rank = next((n, k) for n, of in after.items() for k in of)
    old, new = before[name][rank], after[name][rank]
    what = f"{SHOWN[name]}@{rank}"
    if new > old:
        return f"{what} rose from {old:.4f} to {new:.4f}."
    if new == old:
        return f"{what} stayed at {new:.4f}: training changed nothing that this metric sees."
    return (
        f"The trained model is worse than the one that it started from: {what} fell from {old:.4f} to {new:.4f}. Keep "
        f"the start, or try a smaller learning rate (optimizer.args.lr) or other iterations."
    )
