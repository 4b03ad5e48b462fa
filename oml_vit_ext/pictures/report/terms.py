"""What the words of a report mean, said where they appear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DIMENSIONS = "Dims for 90 %"

_METRICS = {
    "cmc": ("CMC@k", "share of the queries with a right hit among the first k; CMC@1 is also called Recall@1"),
    "map": (
        "MAP@k",
        "mean average precision of the first k hits: 1 if the right ones among them come before all wrong ones, for "
        "every query",
    ),
    "precision": ("P@k", "mean share of right ones among the first k hits, of the at most k that there are"),
}
_SPECTRUM = (
    "how many principal components carry 90 % of the embeddings' variance; few mean that the model has collapsed onto "
    "a few directions. Re-ranking leaves embeddings as they are"
)
_CURVES = {
    "/cmc/": "CMC@k, of the validation.",
    "/map/": "MAP@k, of the validation.",
    "/precision/": "P@k, of the validation.",
    "/pcf/": "Share of the dimensions that this share of the variance needs, of the validation.",
}


def of_metrics(top_k: Mapping[str, Sequence[int]], *, with_spectrum: bool) -> dict[str, str]:
    """The metrics that a table shows."""
    found = dict(_METRICS[name] for name in _METRICS if top_k.get(name))
    return {**found, DIMENSIONS: _SPECTRUM} if with_spectrum else found


def of_curve(name: str) -> str:
    """A sentence on a logged quantity, empty if its name says it."""
    return next((sentence for part, sentence in _CURVES.items() if part in name), "")
