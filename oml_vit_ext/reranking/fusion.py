"""Both opinions count: the first stage's distance and the pair model's, in one number.

A pair model that sees a few thousand pairs is often worse than a trained first stage where the two disagree widely, and
better where the first stage is undecided. Their weighted sum keeps what each knows; its two numbers are fitted on
queries that neither model has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.messages import counted, unknown_name

# What fit_fusion tries. The sigmoid is a step for a large temperature t, a straight line for a small one.
FIRST_STAGE_WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Fusion:
    """The two fitted numbers.

    Attributes:
        first_stage_weight: λ from 0 (the pair model alone) to 1 (the first stage alone: nothing changes).
        temperature: t > 0, by which the pair model's logit is multiplied; 1 leaves its probability as it is.

    Raises:
        ValueError: A number is out of range.
    """

    first_stage_weight: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number("first_stage_weight", self.first_stage_weight, 0, 1)
        if not check_number("temperature", self.temperature) > 0:
            raise ValueError(f"temperature is {self.temperature!r}, expected a positive number.")

    def __call__(self, first_stage: Tensor, pair_scores: Tensor) -> Tensor:
        """``λ · d + (1 − λ) · σ(t · logit)``, elementwise, float32.

        Args:
            first_stage: Distances d of the first stage.
            pair_scores: What ``STIRSiamese.predict`` gives, σ(logit): from 0 to 1, in the same shape.

        Raises:
            ValueError: A pair score is no probability.

        >>> Fusion(first_stage_weight=0.5)(torch.tensor([0.8, 0.4]), torch.tensor([0.2, 0.9]))
        tensor([0.5000, 0.6500])
        """
        pair_scores = pair_scores.float()
        if pair_scores.numel() and not (pair_scores.min() >= 0 and pair_scores.max() <= 1):
            raise ValueError(
                f"The pair model's scores go from {float(pair_scores.min()):.3g} to {float(pair_scores.max()):.3g}, "
                f"expected probabilities from 0 to 1, as STIRSiamese gives them: fusion is not for this model."
            )
        # float32 has no number between 1 - 6e-8 and 1: without a limit, a sure pair would have an infinite logit.
        logits = torch.logit(pair_scores, eps=1e-7)
        of_pair = torch.sigmoid(self.temperature * logits)
        weight = self.first_stage_weight
        return weight * first_stage.float().to(of_pair.device) + (1 - weight) * of_pair


_NAMES = [field.name for field in fields(Fusion)]


def fusion_of(given: Fusion | Mapping[str, float] | str | Path | None) -> Fusion | None:
    """What a config calls ``fusion``: the numbers themselves, a file of them, or ``None``.

    Raises:
        ValueError: The file is damaged, a name is not known or missing, or a number is out of range.
        FileNotFoundError: There is no such file.

    >>> fusion_of({"first_stage_weight": 0.6, "temperature": 2.0})
    Fusion(first_stage_weight=0.6, temperature=2.0)
    """
    if given is None or isinstance(given, Fusion):
        return given
    if isinstance(given, Mapping):
        return _from_mapping(given, "fusion")
    if not isinstance(given, (str, Path)):
        raise ValueError(
            f"fusion is {given!r:.80}, expected a mapping of {' and '.join(_NAMES)}, a file of them, or None."
        )
    path = Path(given).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"fusion {str(given)!r}: there is no such file (looked for {path.absolute()}), expected one that "
            f"save_fusion has written."
        )
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"fusion {str(given)!r} is not a whole JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"fusion {str(given)!r} holds a {type(content).__name__}, expected the file of save_fusion.")
    content.pop("fitted_on", None)  # for people
    return _from_mapping(content, f"fusion {str(given)!r}")


def save_fusion(fusion: Fusion, path: str | Path, fitted_on: Mapping[str, Any] | None = None) -> None:
    """Write a file that ``fusion_of`` reads.

    Args:
        fusion: The numbers.
        path: A JSON file.
        fitted_on: What a reader wants to know of them, e.g. the data set, how many queries, CMC@1.
    """
    with replaced(path) as unfinished:
        unfinished.write_text(json.dumps({**asdict(fusion), "fitted_on": dict(fitted_on or {})}, indent=2) + "\n")


@dataclass(frozen=True)
class FittedFusion:
    """What ``fit_fusion`` found.

    Attributes:
        fusion: The best numbers.
        cmc1: Share of the queries whose first candidate is right, with them.
        cmc1_first_stage: The same for the first stage alone, λ = 1.
        curve: λ -> the best CMC@1 of any temperature: what each weight would have given on these queries.
    """

    fusion: Fusion
    cmc1: float
    cmc1_first_stage: float
    curve: dict[float, float]


def fit_fusion(
    distances: Sequence[Tensor],
    pair_scores: Sequence[Tensor],
    right: Sequence[Tensor],
    *,
    first_stage_weights: Sequence[float] = FIRST_STAGE_WEIGHTS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> FittedFusion:
    """The λ and t with which most queries have a right candidate first: every pair of a grid is tried.

    Among equals, the one with the larger mean reciprocal rank of the first right candidate wins, then the one nearer to
    the first stage. λ = 1 is on the grid, so on these queries fusion is never worse than the first stage.

    The queries must be of labels that **neither** model was trained on: on labels that it has seen, a first stage is
    nearly perfect, and the fit would be λ = 1.

    Args:
        distances: Per query the first stage's distances ``(n,)`` of the candidates that are re-ranked, ascending.
        pair_scores: Per query the pair model's probabilities ``(n,)`` of the same candidates.
        right: Per query ``(n,)``, whether the candidate belongs to the ground truth.
        first_stage_weights: Values of λ to try, besides 1.
        temperatures: Values of t to try.

    Raises:
        ValueError: There are no queries, or the lengths differ.

    >>> first, pair = torch.tensor([0.50, 0.51]), torch.tensor([0.9, 0.2])
    >>> found = fit_fusion([first], [pair], [torch.tensor([False, True])])
    >>> found.cmc1_first_stage, found.cmc1
    (0.0, 1.0)
    """
    lengths = [[len(row) for row in part] for part in (distances, pair_scores, right)]
    if not lengths[0] or lengths[0] != lengths[1] or lengths[0] != lengths[2]:
        raise ValueError(
            f"Distances, pair scores and ground truth are of {len(distances)}, {len(pair_scores)} and "
            f"{counted(len(right), 'query', 'queries')}, expected the same candidates of at least one query in each."
        )
    d, s = _padded(distances, torch.inf), _padded(pair_scores, 0.5)
    is_right = _padded(right, 0.0) > 0
    tried = [Fusion(float(w), float(t)) for w in {*first_stage_weights, 1.0} for t in temperatures]
    quality = {fusion: _quality(fusion, d, s, is_right) for fusion in tried}
    best = max(tried, key=lambda f: (*quality[f], f.first_stage_weight, -abs(np.log(f.temperature))))
    curve = {
        w: max(q[0] for f, q in quality.items() if f.first_stage_weight == w)
        for w in sorted({f.first_stage_weight for f in tried})
    }
    return FittedFusion(best, quality[best][0], curve[1.0], curve)


def _quality(fusion: Fusion, distances: Tensor, pair_scores: Tensor, is_right: Tensor) -> tuple[float, float]:
    """CMC@1 and the mean reciprocal rank of the first right candidate; 0 where there is none."""
    fused = fusion(distances, pair_scores)
    fused = torch.where(distances.isinf(), torch.inf, fused)  # λ = 0 makes NaN of an infinite distance
    ordered = is_right.gather(1, fused.sort(dim=1, stable=True).indices)
    rank = ordered.float().argmax(dim=1) + 1.0
    reciprocal = torch.where(ordered.any(dim=1), 1 / rank, 0.0)
    return float(ordered[:, 0].float().mean()), round(float(reciprocal.mean()), 9)


def _padded(rows: Sequence[Tensor], value: float) -> Tensor:
    """Rows of several lengths -> ``(Q, n)``, float32."""
    return torch.nn.utils.rnn.pad_sequence([row.float().cpu() for row in rows], batch_first=True, padding_value=value)


def _from_mapping(given: Mapping[str, float], what: str) -> Fusion:
    for name in given:
        if name not in _NAMES:
            raise ValueError(unknown_name(f"entry of {what}", name, _NAMES))
    if missing := [name for name in _NAMES if name not in given]:
        raise ValueError(f"{what} has no {missing[0]}, expected {' and '.join(_NAMES)}.")
    return Fusion(**given)
