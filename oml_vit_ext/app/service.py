"""One image in, hits out: an index with its model and a re-ranker, loaded once for everybody who asks."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from oml_vit_ext.app.attention import attention_pictures
from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.reranking import Fusion, STIRReranker
from oml_vit_ext.retrieval import Embedder, Hit, ImageIndex, rerank_hits
from oml_vit_ext.retrieval.index import parse_box

MOST = 100  # hits, and hits that are re-ranked
_SAMPLE = 256  # images of the index whose gaps say what a small gap is


@dataclass(frozen=True)
class Options:
    """How a query is answered.

    Attributes:
        k: Hits.
        rerank: How many of the first hits are re-ranked; 0 for none.
        budget: Re-rank only a query whose first two distances are as close as in this share of the index's own images,
            from 0 to 1; 1 re-ranks all.
        first_stage_weight: λ of the fusion of both distances, from 0 (the re-ranker alone) to 1; ``None``: as the
            re-ranker was configured.
        attention: Also say where the model looks.

    Raises:
        ValueError: A number is out of range.
    """

    k: int = 10
    rerank: int = 0
    budget: float = 1.0
    first_stage_weight: float | None = None
    attention: bool = False

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1, MOST)
        check_whole("rerank", self.rerank, 0, MOST)
        if self.rerank == 1:
            raise ValueError("rerank is 1, expected 0 for none, or at least 2: one hit alone has no order.")
        check_number("budget", self.budget, 0, 1)
        if self.first_stage_weight is not None:
            check_number("first_stage_weight", self.first_stage_weight, 0, 1)


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        before: Hits of the first stage, nearest first.
        after: The same re-ranked; ``None`` if they were not.
        note: Why they were not, although it was asked for.
        seconds: By what was done.
        attention: Pictures of where the model looks: in the query, then in each hit that is shown.
        attention_note: Why there are none, although they were asked for.
    """

    before: list[Hit]
    after: list[Hit] | None
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    attention: list[Image.Image] = field(default_factory=list)
    attention_note: str = ""

    @property
    def hits(self) -> list[Hit]:
        """The final ones."""
        return self.before if self.after is None else self.after

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the pictures."""
        return {
            "hits": _rows(self.hits),
            "before_reranking": _rows(self.before),
            "reranked": self.after is not None,
            "note": self.note,
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "attention_note": self.attention_note,
        }


class SearchService:
    """Answers queries from several threads, one after the other.

    Args:
        index: What is searched.
        embedder: The model of the index.
        reranker: A ``STIRReranker``, or another of OML's pairwise ones; how many hits it looks at is said per query.
        transform: Of the re-ranker's images.
        search_params: Of an approximate index, as for its ``search``.

    Raises:
        ValueError: Another model than the index's, an empty index, or ``search_params`` that do not go with it.
    """

    def __init__(
        self,
        index: ImageIndex,
        embedder: Embedder,
        reranker: Any = None,
        transform: Any = None,
        *,
        search_params: str = "",
    ) -> None:
        index.check_model(embedder.fingerprint, "the query")
        if not len(index):
            raise ValueError("The index is empty: add images before searching.")
        self.index, self.embedder = index, embedder
        self._reranker, self._transform = reranker, transform
        self._fusion: Fusion | None = getattr(reranker, "fusion", None)
        self._lock = threading.Lock()
        self._search_params = search_params
        self._search(np.array([embedder.fingerprint.probe], dtype=np.float32), 1)  # told now, not at each query

    @property
    def has_reranker(self) -> bool:
        return self._reranker is not None

    @property
    def first_stage_weight(self) -> float | None:
        """λ as configured, 0 without fusion; ``None`` if the re-ranker knows no fusion."""
        if not hasattr(self._reranker, "fusion"):
            return None
        return self._fusion.first_stage_weight if self._fusion else 0.0

    def query(self, image: Image.Image, options: Options | None = None) -> Answer:
        """Embed an image, search, re-rank.

        Raises:
            ValueError: The embedding of the image is not finite, or all zeros.
        """
        options = options or Options()
        with tempfile.TemporaryDirectory() as folder, self._lock:
            file = Path(folder) / "query.png"
            image.convert("RGB").save(file, compress_level=1)
            seconds: dict[str, float] = {}
            with _timed(seconds, "embedding"):
                embedding = self.embedder.embed_all([file])
            with _timed(seconds, "search"):
                found = self._search(embedding, max(options.k, options.rerank))[0]
            with _timed(seconds, "re-ranking"):
                after, note = self._reranked(file, found, options)
            before = found[: options.k]
            after = None if after is None else after[: options.k]
            with _timed(seconds, "attention"):
                maps, why = self._attention(file, after or before) if options.attention else ([], "")
        asked = {"re-ranking": after is not None, "attention": options.attention}
        seconds = {name: value for name, value in seconds.items() if asked.get(name, True)}
        return Answer(before, after, note, seconds, maps, why)

    def file_of(self, path: str, box: str = "") -> Path | None:
        """An image file of the index by its name there; ``None`` for all that is not in it."""
        return self.index.root / path if self.index.holds(path, box) else None

    def some_images(self, n: int, seed: int) -> list[dict[str, str]]:
        """``n`` entries of the index as it was at first, drawn at random: path, box and label."""
        chosen = np.random.default_rng(seed).choice(len(self._images), min(n, len(self._images)), replace=False)
        return [{name: str(self._images[name].iloc[i]) for name in ("path", "box", "label")} for i in chosen]

    @cached_property
    def _images(self) -> pd.DataFrame:
        return self.index.images

    def _search(self, embeddings: Floats, k: int) -> list[list[Hit]]:
        return self.index.search(embeddings, k, search_params=self._search_params)

    def _reranked(self, file: Path, found: Sequence[Hit], options: Options) -> tuple[list[Hit] | None, str]:
        if not options.rerank:
            return None, ""
        if self._reranker is None:
            return None, "There is no re-ranker here: start the app with one."
        if len(found) < 2:
            return None, "There are too few hits to re-rank."
        gap, margin = found[1].distance - found[0].distance, self.margin(options.budget)
        if not gap < margin:
            return None, (
                f"Not re-ranked: the first two distances differ by {gap:.3f}, and a budget of {options.budget:.0%} is "
                f"for queries with less than {margin:.3f}."
            )
        reranker = self.reranker(options.rerank, options.first_stage_weight)
        return rerank_hits(file, found, self.index.root, reranker, self._transform), ""

    def reranker(self, top_n: int, first_stage_weight: float | None = None) -> STIRReranker:
        """A re-ranker of so many hits with the pair model and the settings of the one that was given."""
        given, fusion = self._reranker, self._fusion
        if first_stage_weight is not None:
            temperature = fusion.temperature if fusion else 1.0
            fusion = Fusion(first_stage_weight, temperature) if first_stage_weight > 0 else None
        return STIRReranker(top_n, given.model, 0, given.batch_size, use_fp16=given.use_fp16, fusion=fusion)

    def margin(self, budget: float) -> float:
        """The difference of the first two distances below which a query is re-ranked."""
        if budget >= 1:
            return float("inf")
        return float(np.quantile(self._gaps, budget)) if budget > 0 else 0.0

    @cached_property
    def _gaps(self) -> NDArray[np.float64]:
        """Differences of the first two distances, for some images of the index searched among the others."""
        images = self._images
        chosen = np.random.default_rng(0).permutation(len(images))[:_SAMPLE]
        keys = images.key.iloc[chosen].tolist()
        found = self._search(self.index._embeddings_of(keys), k=3)
        gaps = []
        for path, hits in zip(images.path.iloc[chosen], found, strict=True):
            others = [hit.distance for hit in hits if hit.path != path]
            if len(others) > 1:
                gaps.append(others[1] - others[0])
        return np.array(gaps or [float("inf")])

    def _attention(self, file: Path, hits: Sequence[Hit]) -> tuple[list[Image.Image], str]:
        files = [file, *(self.index.root / hit.path for hit in hits)]
        boxes = [None, *(parse_box(hit.box) for hit in hits)]
        try:
            return attention_pictures(self.embedder, files, boxes), ""
        except (TypeError, ValueError) as error:  # an extractor whose attention cannot be read
            return [], str(error)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Write down how long the block took."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _rows(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"rank": rank, **hit._asdict()} for rank, hit in enumerate(hits, start=1)]
