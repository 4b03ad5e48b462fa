"""Re-ranks the hits of one query image with any postprocessor of OML."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from oml.interfaces.datasets import IQueryGalleryDataset
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.retrieval.retrieval_results import RetrievalResults
from torch import LongTensor

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.images.sizes import look_at_images
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.image_list import parse_box
from oml_vit_ext.transforms.boxed_images import BoxedImages


class Tokens(Protocol):
    """Of ``reranking.TokenStore``, what is needed here."""

    @property
    def model(self) -> Any: ...

    @property
    def transform(self) -> Any: ...

    def files(self, paths: Sequence[Path], boxes: Sequence[Box | None]) -> list[Path | None]: ...


def rerank_hits(
    query: Path | str,
    hits: Sequence[Hit],
    root: Path | str,
    reranker: IRetrievalPostprocessor,
    transform: Any,
    *,
    tokens: Tokens | None = None,
) -> list[Hit]:
    """The same hits in the order, and with the distances, that the re-ranker gives them.

    Hits whose images are gone, or no images any more, come last.

    Args:
        query: The image that was searched.
        hits: What the index found for it, nearest first; of an index with a grid the nearest part is compared.
        root: Folder of the hits' paths: ``index.root``.
        reranker: E.g. ``STIRReranker(top_n=20, ...)``; its ``top_n`` says how many of the first hits it looks at.
        transform: Of the re-ranker's images.
        tokens: A ``TokenStore`` of the re-ranker's model: hits that it holds are not decoded. It holds whole images and
            boxes, not the parts of a grid.

    Warns:
        UserWarning: Of hits that cannot be compared, and why.

    Raises:
        ValueError: ``tokens`` are of another model than the re-ranker's, or of other transforms.
    """
    if tokens is not None and (
        tokens.model is not getattr(reranker, "model", None) or tokens.transform is not transform
    ):
        raise ValueError(
            "tokens are of another model or transform than the re-ranker's, expected a TokenStore of these two."
        )
    hits, left_out = _readable(hits, Path(root))
    if len(hits) < 2:
        return [*hits, *left_out]
    dataset = _OneQuery(Path(query), hits, Path(root), transform)
    if tokens is not None:
        paths, boxes = [Path(root) / hit.path for hit in hits], [parse_box(hit.box) for hit in hits]
        files = tokens.files(paths, boxes)
        dataset.token_files = [None, *(None if hit.crop else file for hit, file in zip(hits, files, strict=True))]
    found = RetrievalResults(
        distances=[torch.tensor([hit.distance for hit in hits])],  # type: ignore[list-item]
        retrieved_ids=[torch.arange(len(hits))],  # type: ignore[list-item]
    )
    reranked = reranker.process(found, dataset)
    order, distances = reranked.retrieved_ids[0].tolist(), reranked.distances[0].tolist()
    reordered = [hits[i]._replace(distance=distance) for i, distance in zip(order, distances, strict=True)]
    return [*reordered, *(hit._replace(distance=max(hit.distance, *distances)) for hit in left_out)]


def _readable(hits: Sequence[Hit], root: Path) -> tuple[list[Hit], list[Hit]]:
    """The hits whose images are there, as far as their headers tell, and the others."""
    sizes = look_at_images(root, [hit.path for hit in hits], verbose=False)
    broken = {i: size for i, size in enumerate(sizes) if isinstance(size, str)}
    if broken:
        told = some([f"{hits[i].path} ({reason})" for i, reason in broken.items()])
        warnings.warn(
            f"{counted(len(broken), 'hit')} cannot be compared with the query: {told}. Sync the index.", stacklevel=3
        )
    return [hit for i, hit in enumerate(hits) if i not in broken], [hits[i] for i in broken]


class _OneQuery(BoxedImages, IQueryGalleryDataset):
    """The query and its hits as a data set of OML."""

    token_files: Sequence[Path | None] = ()  # see ``score_pairs``

    def __init__(self, query: Path, hits: Sequence[Hit], root: Path, transform: Any) -> None:
        super().__init__(
            [query, *(root / hit.path for hit in hits)],
            [None, *(parse_box(hit.crop or hit.box) for hit in hits)],
            transform,
        )

    def get_query_ids(self) -> LongTensor:
        return torch.tensor([0])  # type: ignore[return-value]

    def get_gallery_ids(self) -> LongTensor:
        return torch.arange(1, len(self))  # type: ignore[return-value]
