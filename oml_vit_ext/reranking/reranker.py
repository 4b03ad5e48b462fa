"""The re-ranker of STIR: OML's ``PairwiseReranker`` at a fraction of its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oml.interfaces.datasets import IQueryGalleryDataset
from oml.interfaces.models import IPairwiseModel
from oml.retrieval.postprocessors.pairwise import PairwiseReranker
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.distributed import rank_and_world, run_share
from oml_vit_ext.common.messages import counted
from oml_vit_ext.reranking.budget import queries_to_rerank
from oml_vit_ext.reranking.fusion import Fusion, fusion_of
from oml_vit_ext.reranking.pair_order import Pairs
from oml_vit_ext.reranking.precision import pays
from oml_vit_ext.reranking.score_file import SharedScoreFile
from oml_vit_ext.reranking.scoring import ScoringStats, device_of, score_pairs
from oml_vit_ext.reranking.siamese import STIRSiamese


class STIRReranker(PairwiseReranker):
    """Puts the first ``top_n`` candidates of each query into the order of a pairwise model; the rest stays.

    Results are those of OML's ``PairwiseReranker``. Each image is decoded and transformed once per pass, as far as
    ``memory_mb`` allows, no gradients are kept, half precision works on every device, and all processes of
    ``torch.distributed`` share the pairs. With a ``STIRSiamese``, what it computes per image is computed once per
    image; where the order of the images makes no difference (``STIRSiamese.symmetric``), a pair that occurs in both
    orders is computed once.

    New distances are scaled down where they exceed the first distance of the rest, see ``merge_distances``. Equal
    scores keep the first stage's order.

    Args:
        top_n: How many candidates per query to compare, at least 2. Queries with fewer keep those that they have.
        pairwise_model: A ``STIRSiamese`` or any other pairwise model of OML. Runs on the device that it is on.
        num_workers: Processes that decode images.
        batch_size: At most so many pairs in one forward pass.
        verbose: Show a progress bar.
        use_fp16: Autocast: float16 on a GPU, bfloat16 on a CPU; on a CPU without units for bfloat16, float32 is faster
            and used, and the log says so once.
        memory_mb: The most that kept images may take, in MB (1e6 bytes) on the model's device. Less costs more decodes.
        budget: Re-rank only this share of the queries, from 0 to 1: those whose first two distances are closest.
        margin: Or re-rank only queries whose first two distances differ by less than this.
        scores_file: An ``.npz`` file that scores are written to twice a minute, and taken from by a later run with the
            same model, images and precision, e.g. after an interruption or with a larger ``top_n``.
        fusion: New distances are ``λ · first-stage distance + (1 − λ) · σ(t · pair logit)`` instead of the pair model's
            alone, see ``Fusion``: ``{"first_stage_weight": λ, "temperature": t}``, or a file of ``fit-fusion``.
            For pair models that give probabilities, as ``STIRSiamese`` does.

    Attributes:
        last_stats: ``ScoringStats`` of the last call, in this process: pairs, decodes, pairs per second, memory.

    Raises:
        ValueError: An argument is out of range, or the file of ``fusion`` is damaged.
        FileNotFoundError: The file of ``fusion`` is not there.
        TypeError: ``pairwise_model`` is not a pairwise model.
    """

    def __init__(
        self,
        top_n: int,
        pairwise_model: IPairwiseModel,
        num_workers: int,
        batch_size: int,
        verbose: bool = False,
        use_fp16: bool = False,
        *,
        memory_mb: float = 2048,
        budget: float | None = None,
        margin: float | None = None,
        scores_file: str | Path | None = None,
        fusion: Fusion | Mapping[str, float] | str | Path | None = None,
    ) -> None:
        check_whole("top_n", top_n, 2, why="with fewer there is nothing to re-rank")
        check_whole("batch_size", batch_size, 1, why="pairs per forward pass")
        check_whole("num_workers", num_workers, 0, why="0 decodes in this process")
        if not isinstance(pairwise_model, IPairwiseModel):
            raise TypeError(
                f"pairwise_model is a {type(pairwise_model).__name__}, expected a pairwise model (IPairwiseModel), "
                f"e.g. STIRSiamese (in YAML: name: stir)."
            )
        if not check_number("memory_mb", memory_mb) > 0:
            raise ValueError(f"memory_mb is {memory_mb!r}, expected a positive number of MB.")
        if budget is not None and margin is not None:
            raise ValueError("Both budget and margin are given, expected one of them.")
        if budget is not None:
            check_number("budget", budget, 0, 1)
        if margin is not None and not (isinstance(margin, Real) and not isinstance(margin, bool) and margin >= 0):
            raise ValueError(f"margin is {margin!r}, expected a difference of two distances, 0 or more.")
        super().__init__(top_n, pairwise_model, num_workers, batch_size, verbose, use_fp16)
        self.memory_mb = memory_mb
        self.budget, self.margin = budget, margin
        if scores_file is not None and not isinstance(scores_file, (str, Path)):
            raise ValueError(f"scores_file is {scores_file!r:.80}, expected the path of an .npz file, or None.")
        self.scores_file = None if scores_file is None else Path(scores_file).expanduser()
        self.fusion = fusion_of(fusion)
        self.last_stats = ScoringStats()

    def process(self, rr: RetrievalResults, dataset: IQueryGalleryDataset) -> RetrievalResults:
        """Re-ranked results; the number of results per query and the ground truth stay as they are.

        Raises:
            ValueError: ``rr`` and ``dataset`` have different numbers of queries, images differ in size, or there is
                ``fusion`` for a model whose scores are no probabilities.
            RuntimeError: An image cannot be read, or the model gives NaN.
        """
        n_queries = dataset.get_query_ids().numel()
        if n_queries != len(rr.retrieved_ids):
            raise ValueError(
                f"The retrieval results have {counted(len(rr.retrieved_ids), 'query', 'queries')}, but the data "
                f"set has {n_queries}: "
                f"expected the data set that they were retrieved from."
            )
        distances, retrieved_ids = self._process_raw(rr.retrieved_ids, rr.distances, dataset)
        return RetrievalResults(distances, retrieved_ids, gt_ids=rr.gt_ids)

    def _process_raw(
        self, retrieved_ids: Sequence[Tensor], distances: Sequence[Tensor], dataset: IQueryGalleryDataset
    ) -> tuple[Any, Any]:
        chosen = queries_to_rerank(distances, self.budget, self.margin).tolist()
        scores = self.candidate_scores([retrieved_ids[q] for q in chosen], dataset, chosen)
        new_distances, new_ids = [d.float() for d in distances], list(retrieved_ids)
        for q, of_query in zip(chosen, scores, strict=True):
            of_query = of_query.to(distances[q].device)
            if self.fusion is not None:
                of_query = self.fusion(distances[q][: self.top_n], of_query)
            new, order = of_query.sort(stable=True)
            new_distances[q] = merge_distances(new, distances[q][self.top_n :])
            new_ids[q] = torch.cat([retrieved_ids[q][: self.top_n][order], retrieved_ids[q][self.top_n :]])
        return new_distances, new_ids

    def candidate_scores(
        self, retrieved_ids: Sequence[Tensor], dataset: IQueryGalleryDataset, queries: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The model's distances of each query's first ``top_n`` candidates, as they are: what fusion is fitted on.

        Args:
            retrieved_ids: Per query what was retrieved for it, nearest first.
            dataset: What it was retrieved from.
            queries: Which queries these are, by their positions in ``dataset``; ``None``: all.

        Returns:
            Per query at most ``top_n`` distances, float32.
        """
        # A data set with a single query or a single gallery image has a tensor without dimensions here.
        query_ids, gallery_ids = dataset.get_query_ids().reshape(-1), dataset.get_gallery_ids().reshape(-1)
        tops = [gallery_ids[ids.cpu()[: self.top_n].long()].numpy() for ids in retrieved_ids]
        lengths = [len(top) for top in tops]
        firsts = query_ids.numpy()[list(range(len(tops)) if queries is None else queries)].repeat(lengths)
        pairs = np.stack([firsts, np.concatenate([np.zeros(0, dtype=np.int64), *tops])], axis=1).astype(np.int64)
        return list(self.score(pairs, dataset).split(lengths))

    def score(self, pairs: Pairs, dataset: IQueryGalleryDataset) -> Tensor:
        """The model's distances ``(N,)``, float32, of ``(N, 2)`` pairs of image ids in ``dataset``."""
        if isinstance(self.model, STIRSiamese) and self.model.symmetric:
            pairs = np.sort(pairs, axis=1)
        distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
        rank, world = rank_and_world()
        file = None
        known = np.full(len(distinct), np.nan, dtype=np.float32)
        if self.scores_file is not None:
            half = pays(self.use_fp16, device_of(self.model))
            file = SharedScoreFile(self.scores_file, self.model, dataset, half)
            known = file.known(distinct)
        left = np.flatnonzero(np.isnan(known))
        mine = np.array_split(left, world)[rank]

        for rows, found in run_share(lambda: (mine, self._score_mine(distinct[mine], dataset, file))):
            known[rows] = found.numpy()
        self.last_stats = replace(self.last_stats, reused=len(pairs) - len(left))
        if file is not None:
            file.close(distinct[left], known[left])
        return torch.from_numpy(known[inverse.reshape(-1)])

    def _score_mine(self, pairs: Pairs, dataset: IQueryGalleryDataset, file: SharedScoreFile | None) -> Tensor:
        try:
            scores, self.last_stats = score_pairs(
                self.model,
                dataset,
                pairs,
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                memory_mb=self.memory_mb,
                half=self.use_fp16,
                verbose=self.verbose,
                on_scores=None if file is None else lambda rows, found: file.add(pairs[rows], found.numpy()),
            )
        finally:
            if file is not None:
                file.write()
        return scores


def merge_distances(new: Tensor, rest: Tensor) -> Tensor:
    """Join the distances of the re-ranked candidates and of the rest into one ascending list.

    If the largest new distance exceeds the smallest of the rest, the new ones are scaled down by one factor so that it
    does not, as OML's ``PairwiseReranker`` documents it. Where no factor can do that (a distance of zero or below),
    they are shifted by one summand instead.

    OML's ``cat_two_sorted_tensors_and_keep_it_sorted`` is not used: it changes its input, divides by zero where the
    largest new distance is zero, turns the order round where a distance is negative, and subtracts an eps.

    Args:
        new: ``(n,)`` distances by the pairwise model, ascending.
        rest: ``(m,)`` distances by the first stage, ascending.

    Returns:
        ``(n + m,)``, float32, ascending, on the device of ``new``.

    >>> merge_distances(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 3.0]))
    tensor([0.5000, 1.0000, 2.0000, 2.0000, 3.0000])
    """
    new, rest = new.float(), rest.float().to(new.device)
    if len(new) == 0 or len(rest) == 0 or new[-1] <= rest[0]:
        return torch.cat([new, rest])
    limit, can_scale = rest[0], bool(rest[0] > 0 and new[0] >= 0)
    new = new * (limit / new[-1]) if can_scale else new - (new[-1] - limit)
    return torch.cat([new.clamp(max=limit.item()), rest])  # rounding may pass the limit
