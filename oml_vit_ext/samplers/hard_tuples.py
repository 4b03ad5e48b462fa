"""Tuples of anchor, positive and hard negatives, mined again each epoch (Radenović et al., arXiv 1711.02512)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from oml.const import LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN
from torch import Tensor

from oml_vit_ext.common.arrays import row_of_whole_numbers
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.datasets.frame import read_frame
from oml_vit_ext.datasets.listing import read_table
from oml_vit_ext.samplers.epochs import EpochBatchSampler
from oml_vit_ext.samplers.mining import Ids, arrange, checked_embeddings, hardest_negatives

logger = logging.getLogger(__name__)

# Rows of the training set (n,) to their embeddings (n, D) of length 1.
Embed = Callable[[Ids], "Tensor | NDArray[np.floating[Any]]"]


class HardTuplesSampler(EpochBatchSampler):
    """Batches of ``n_tuples`` tuples: an anchor, an image that shows the same, ``n_negatives`` of other labels.

    At the start of each epoch ``n_pairs`` pairs and ``n_candidates`` images are drawn and embedded by the model.
    Each anchor gets the candidates that are most similar to it, at most one of each label, none of its own.
    In OML's pipeline this needs nothing but the name of this sampler; in your own loop, see :meth:`mine_with`.

    Within a batch the tuples are chosen so that they share no label where that is possible. A loss that takes equal
    labels as positives, such as ``contrastive_xbm`` or ``irt``, then sees one positive for each anchor.

    The draws depend on ``seed`` and the epoch alone. With several processes each embeds its share of the images,
    all get the same tuples, and OML gives each process its share of the batches.

    Args:
        labels: Label of each training row; passed by OML's pipeline.
        n_tuples: Tuples in a batch.
        n_negatives: Negatives in a tuple.
        n_pairs: Pairs in an epoch; all, if there are fewer.
        n_candidates: Images among which negatives are looked for; all, if there are fewer.
        pairs: CSV file with the columns ``anchor`` and ``positive``, paths as in the dataframe, as the converter of
            SfM-120k writes it; other columns and pairs of other splits are ignored. ``None``: any two images of one
            label are a pair.
        dataset_root, dataframe_name: As in the pipeline's config; needed with ``pairs``.
        seed: Of the random draws.

    Raises:
        ValueError: An argument is out of range, or the file of pairs does not belong to the training set.
    """

    def __init__(
        self,
        labels: Sequence[int] | NDArray[Any],
        n_tuples: int = 5,
        n_negatives: int = 5,
        n_pairs: int = 2_000,
        n_candidates: int = 22_000,
        pairs: str | Path | None = None,
        dataset_root: str | Path | None = None,
        dataframe_name: str = "df.csv",
        seed: int = 0,
    ) -> None:
        given = {"n_tuples": n_tuples, "n_negatives": n_negatives, "n_pairs": n_pairs, "n_candidates": n_candidates}
        for name, value in given.items():
            check_whole(name, value, 1)
        self.labels = row_of_whole_numbers(labels, "labels")
        if pairs is not None and not isinstance(pairs, (str, Path)):
            raise ValueError(f"pairs is {pairs!r:.80}, expected the path of a CSV file, or None.")
        if len(np.unique(self.labels)) < n_negatives + 1:
            raise ValueError(
                f"n_negatives is {n_negatives}, but the training set has "
                f"{counted(len(np.unique(self.labels)), 'label')}: each negative has one of its own, and the anchor "
                f"too."
            )
        self.n_tuples = n_tuples
        self.n_negatives = n_negatives
        self.n_candidates = min(n_candidates, len(self.labels))
        self.seed = check_whole("seed", seed)
        self.pairs = None if pairs is None else _rows_of_pairs(Path(pairs), self.labels, dataset_root, dataframe_name)
        # Without a file each image that is not alone in its label is the anchor of one pair.
        self._anchors = np.flatnonzero(_counts_of(self.labels) > 1) if self.pairs is None else self.pairs[:, 0]
        self.n_pairs = min(n_pairs, len(self._anchors))
        if self.n_pairs < n_tuples:
            raise ValueError(
                f"The training set has {counted(len(self._anchors), 'pair')}, expected at least n_tuples={n_tuples}."
            )
        self.last_similarity: float | None = None  # mean of the anchors and their negatives, when last mined
        self._embed: Embed | None = None
        self._report: Callable[[dict[str, float]], None] | None = None
        self._mined: tuple[int, list[list[int]]] | None = None

    @property
    def batch_size(self) -> int:
        return self.n_tuples * (2 + self.n_negatives)

    def __len__(self) -> int:
        return self.n_pairs // self.n_tuples

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch, mined when the first one is asked for."""
        if self._embed is None:
            raise RuntimeError(
                "hard_tuples has no model to mine with: use it in OML's training pipeline, or call "
                "sampler.mine_with(embed) first, where embed turns rows of the training set into embeddings."
            )
        epoch = self._next_epoch()
        if self._mined is None or self._mined[0] != epoch:  # Lightning asks for the first batches more than once
            self._mined = epoch, self._batches(self.draw(epoch), self._embed)
            logger.info(
                "hard_tuples: epoch %d, mean similarity of anchors and negatives %.4f", epoch, self.last_similarity
            )
            if self._report is not None and self.last_similarity is not None:
                self._report({"mined_similarity": self.last_similarity})
        yield from self._mined[1]

    def mine_with(self, embed: Embed, epoch: Callable[[], int] | None = None) -> None:
        """Mine with this model from the next epoch on.

        Args:
            embed: Rows of the training set ``(n,)`` to embeddings ``(n, D)`` of length 1. Called once an epoch.
            epoch: As in :meth:`follow_epochs`.
        """
        self._embed, self._mined = embed, None
        if epoch is not None:
            self.follow_epochs(epoch)

    def report_to(self, report: Callable[[dict[str, float]], None]) -> None:
        """Call this with the figures of each mining by their names; in OML's pipeline they go to its logger."""
        self._report = report

    def draw(self, epoch: int) -> Draw:
        """The pairs and the candidates of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        chosen = rng.permutation(len(self._anchors))[: self.n_pairs]
        anchors = self._anchors[chosen]
        positives = _others(anchors, self.labels, rng) if self.pairs is None else self.pairs[chosen, 1]
        return Draw(anchors, positives, np.sort(rng.permutation(len(self.labels))[: self.n_candidates]))

    def _batches(self, draw: Draw, embed: Embed) -> list[list[int]]:
        """Each tuple's rows side by side: anchor, positive, negatives."""
        rows = np.unique(np.concatenate([draw.anchors, draw.candidates]))
        embeddings = checked_embeddings(embed(rows), len(rows))
        of_anchors = embeddings[np.searchsorted(rows, draw.anchors)]
        of_candidates = embeddings[np.searchsorted(rows, draw.candidates)]
        positions, similarity = hardest_negatives(
            of_anchors, self.labels[draw.anchors], of_candidates, self.labels[draw.candidates], self.n_negatives
        )
        self.last_similarity = float(similarity.mean())
        tuples = np.column_stack([draw.anchors, draw.positives, draw.candidates[positions]])
        without_positives = self.labels[np.delete(tuples, 1, axis=1)]  # of the anchors' labels
        return [tuples[batch].reshape(-1).tolist() for batch in arrange(without_positives, self.n_tuples)]


class Draw(NamedTuple):
    """Rows of the training set."""

    anchors: Ids  # (n_pairs,)
    positives: Ids  # (n_pairs,)
    candidates: Ids  # (n_candidates,), ascending


def _others(anchors: Ids, labels: Ids, rng: np.random.Generator) -> Ids:
    """For each anchor another row of its label, at random."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[anchors])
    counts = _counts_of(labels)[anchors]
    places = np.empty(len(labels), dtype=np.int64)
    places[order] = np.arange(len(labels))
    steps = 1 + rng.integers(counts - 1)
    return order[starts + (places[anchors] - starts + steps) % counts]


def _counts_of(labels: Ids) -> Ids:
    """How many rows have the label of each row."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[inverse]


def _rows_of_pairs(file: Path, labels: Ids, dataset_root: str | Path | None, dataframe_name: str) -> Ids:
    """The pairs as training rows ``(P, 2)``."""
    if dataset_root is None:
        raise ValueError("pairs is given without dataset_root: expected the folder of the training set's dataframe.")
    dataframe = Path(dataset_root) / dataframe_name
    df = read_frame(dataframe, (PATHS_COLUMN, SPLIT_COLUMN))
    paths = df[PATHS_COLUMN][df[SPLIT_COLUMN] == "train"].astype(str).tolist()
    if len(paths) != len(labels):
        raise ValueError(
            f"{dataframe} has {counted(len(paths), 'training row')}, but the sampler was given {len(labels)} "
            f"labels: expected as many."
        )
    table = read_table(file, index_col=False)
    missing = {"anchor", "positive"} - set(table.columns)
    if missing:
        raise ValueError(f"{file} has no column {min(missing)!r}, expected anchor and positive.")
    if SPLIT_COLUMN in table:
        table = table[table[SPLIT_COLUMN] == "train"]
    row_of = pd.Series(np.arange(len(paths)), index=paths)
    rows = np.column_stack([row_of.reindex(table[c].astype(str)).to_numpy() for c in ("anchor", "positive")])
    if len(rows) == 0 or np.isnan(rows).any():
        unknown = table[np.isnan(rows).any(axis=1)].iloc[0].anchor if len(rows) else "nothing"
        raise ValueError(f"{file} lists {unknown} for training, which is not among the training rows of {dataframe}.")
    found: Ids = rows.astype(np.int64)
    unlike = labels[found[:, 0]] != labels[found[:, 1]]
    if unlike.any():
        raise ValueError(
            f"{file}: {counted(int(unlike.sum()), 'pair has', 'pairs have')} two different {LABELS_COLUMN}s, the "
            f"first is pair "
            f"{int(unlike.argmax())}."
        )
    return found
