"""Nearest rows through faiss: exactly, or through any index that ``faiss.index_factory`` builds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import faiss
import numpy as np

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.progress import progress
from oml_vit_ext.retrieval.forks import lock_across_forks, search_in_one_thread_after_forks
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.search_params import search_parameters
from oml_vit_ext.retrieval.settings import EXACT, Settings

_EXAMPLES = "'Flat', 'IVF1024,Flat', 'HNSW32', 'IVF4096,PQ48np'"
_TRAINING_SEED = 0
_LEAST_OF_NSG = 101  # rows of its graph
# Numbers in a factory string: below and above, faiss takes memory before it has seen a row, hangs, or ends the process.
_LIMITS = (
    ("inverted lists", r"IVF(\d+)", 1, 2**22),
    ("bits of each half of the inverted multi-index", r"IMI\d+x(\d+)", 1, 11),
    ("neighbours", r"(?:HNSW|NSG)(\d+)", 2, 1_024),
    ("bits of a code", r"(?:PQ|RQ|LSQ|Residual|RCQ)[\dx]*x(\d+)", 1, 16),
    ("parts of a vector", r"(?:PQ|RQ|LSQ|IMI|ZnLattice)(\d+)", 1, 65_536),
    ("dimensions", r"(?:Pad|PCA[WR]*|OPQ\d+_|ITQ|RR|LSH)(\d+)", 1, 65_536),
    ("anything", r"(\d+)", 0, 2**24),
)
_MOST_CODEBOOK = 2**31  # bytes
# As many as faiss's k-means uses; 65 536 is what 256 centroids of a product quantizer use.
_TRAINING_ROWS_PER_CENTROID, _LEAST_TRAINING_ROWS = 256, 65_536

# Larger matrix products than faiss's default of 1 024 columns: a fifth less time on two cores, equal results.
_COLUMNS = 4_096
_SEARCHING = lock_across_forks()
search_in_one_thread_after_forks()
_searches: list[int] = []  # faiss's own value, once for each exact search that is running


class Engine(Protocol):
    """Finds the rows of one gallery."""

    exact: bool

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        """``(Q, dim)`` -> ascending squared distances and positions, both ``(Q, k)``; -1 where none was found."""
        ...


class ExactEngine:
    """Compares every query with every row, a block of the gallery at a time, without building an index.

    Args:
        gallery: What is searched.
        memory_mb: Bound for a block of gallery rows, in MB; rows that are float32 already are not copied at all.
    """

    exact = True

    def __init__(self, gallery: Rows, memory_mb: float) -> None:
        self._gallery = gallery
        self._block = max(1024, int(memory_mb * 1e6 / (4 * gallery.dim)))

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        with _larger_products():
            return self._search(queries, k)

    def _search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        if len(self._gallery) <= self._block:
            return faiss.knn(queries, self._gallery.block(0, len(self._gallery)), k)
        heap = faiss.ResultHeap(len(queries), k)
        for start, rows in self._gallery.blocks(self._block):
            distances, ids = faiss.knn(queries, rows, min(k, len(rows)))
            heap.add_result(distances, ids + start)
        heap.finalize()
        return heap.D, heap.I


class FaissEngine:
    """A faiss index that holds the gallery.

    Args:
        index: Any filled index of faiss.
        search_params: Settings of this engine's searches, e.g. ``nprobe=16`` or ``efSearch=64``; others that share the
            index keep theirs.
        name: The factory string of the index, for messages.
    """

    exact = False

    def __init__(self, index: Any, search_params: str, name: str) -> None:
        self._index, self._name, self._params = index, name, search_params
        search_parameters(index, search_params, name)  # wrong ones are told before there are queries

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        try:
            return self._index.search(queries, k, params=search_parameters(self._index, self._params, self._name, k))
        except RuntimeError as error:
            raise ValueError(
                f"index {self._name!r} cannot be searched: {reason(error)}. Expected a faiss factory string that "
                f"goes with dimension {queries.shape[1]}, e.g. {_EXAMPLES}."
            ) from error


def make_engine(gallery: Rows, settings: Settings) -> Engine:
    """The engine for a factory string: the exact one for ``Flat``, else one that builds its index of the gallery.

    Raises:
        ValueError: As :func:`exact_engine`, :func:`build_index` and :func:`search_parameters`.
    """
    if settings.index == EXACT:
        return exact_engine(gallery, settings)
    built = build_index(gallery, settings.index, memory_mb=settings.memory_mb / 2, verbose=settings.verbose)
    return FaissEngine(built, settings.search_params, settings.index)


def exact_engine(gallery: Rows, settings: Settings) -> ExactEngine:
    """The engine that compares everything; half of the memory is for its blocks.

    Raises:
        ValueError: There are ``search_params``, which an exact search does not have.
    """
    if settings.search_params:
        raise ValueError(
            f"search_params is {settings.search_params!r}, but index 'Flat' is exact and has none: expected ''."
        )
    return ExactEngine(gallery, settings.memory_mb / 2)


def build_index(gallery: Rows, index: str, *, memory_mb: float, verbose: bool) -> Any:
    """Train an approximate index on a sample of the gallery and fill it.

    Args:
        gallery: What is searched.
        index: A faiss factory string, e.g. ``IVF1024,Flat``.
        memory_mb: Bound for the blocks in MB. The index itself and its training rows come on top.
        verbose: Show progress.

    Raises:
        ValueError: faiss does not know the string, it does not go with the dimension, or the gallery is too small to
            train the index.
    """
    built = empty_index(gallery.dim, index)
    train_index(built, gallery, index, verbose=verbose)
    add_rows(built, gallery, memory_mb=memory_mb, verbose=verbose)
    return built


def empty_index(dim: int, index: str) -> Any:
    """``faiss.index_factory`` with L2 distances, its errors in one sentence."""
    if not isinstance(index, str):
        raise ValueError(f"index is {index!r:.80}, expected a faiss factory string, e.g. {_EXAMPLES}.")
    for what, pattern, low, high in _LIMITS:
        for number in re.findall(pattern, index):
            check_whole(f"The number of {what} in index {index!r:.80}", int(number[:30]), low, high)
    _check_codebooks(dim, index)
    try:
        return faiss.index_factory(dim, index, faiss.METRIC_L2)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(
            f"index {index!r} cannot be built for dimension {dim}: {reason(error)}. "
            f"Expected a faiss factory string, e.g. {_EXAMPLES}."
        ) from error


def _check_codebooks(dim: int, index: str) -> None:
    """Product quantizers take the memory of their centroids at once: 2 ** bits of the vectors' width, in all parts."""
    widest = _widest(dim, index)
    for bits in re.findall(r"(?:PQ\d+x|IMI\d+x)(\d+)", index):
        n_bytes = 4 * 2 ** int(bits) * widest
        if n_bytes > _MOST_CODEBOOK:
            raise ValueError(
                f"index {index!r:.80} has centroids of {n_bytes / 1e9:,.1f} GB for dimension {widest}, expected at "
                f"most {_MOST_CODEBOOK / 1e9:,.1f} GB: fewer bits, or a PCA before it."
            )


def _widest(dim: int, index: str) -> int:
    """The most dimensions that vectors have on their way through an index."""
    return max([dim, *(int(number) for number in re.findall(r"(?:Pad|RR|OPQ\d+_)(\d+)", index))])


def check_fillable(dim: int, index: str, n_rows: int | None = None) -> None:
    """Try a factory string before the work that fills it.

    Raises:
        ValueError: As :func:`empty_index`; no rows can be added to such an index; or it needs more than the ``n_rows``
            of the gallery to be trained.
    """
    built = empty_index(dim, index)
    widest = _widest(dim, index)
    kept = [int(number) for number in re.findall(r"(?:PCA[WR]*|ITQ)(\d+)", index)]
    for number in kept:
        check_whole(f"The number of dimensions in index {index!r:.80}", number, 1, widest, "dimensions before it")
    try:
        inner = faiss.downcast_index(built)
        if isinstance(inner, faiss.IndexLattice):
            raise RuntimeError("faiss writes such an index to a file, but cannot read it again")
        if isinstance(inner, (faiss.AdditiveCoarseQuantizer, faiss.Index2Layer)):
            raise RuntimeError("it only assigns vectors to lists, for other indexes")
        if re.search(r"(^|,)IDMap", index):
            raise RuntimeError("IDMap expects a number with each row, and here their order is their number")
        if built.is_trained:
            built.add(np.ones((1, dim), dtype=np.float32))
    except RuntimeError as error:
        raise ValueError(
            f"index {index!r} cannot be filled: {reason(error)}. Expected a faiss factory string, e.g. {_EXAMPLES}."
        ) from error
    least = 0 if built.is_trained else max([_least_for_quantizers(built, index), *kept])
    if n_rows is not None and n_rows < least:
        raise ValueError(
            f"index {index!r} cannot be trained on a gallery of {counted(n_rows, 'row')} of dimension {dim}, "
            f"expected at least {least}. Use a smaller index, or 'Flat'."
        )


def _least_for_quantizers(built: Any, index: str) -> int:
    """Rows that training needs, as far as the lists and the codes of the factory string tell.

    Raises:
        ValueError: Lists are found by an index of their centroids that needs more of them than there are.
    """
    found = re.search(r"IVF(\d+)(?:\((?P<inner>.*?)\)|_(?P<graph>NSG\d*))", index)
    outer = index
    if found:
        coarse = found["inner"] or found["graph"]
        least = max(_rows_for_codes(coarse), _LEAST_OF_NSG if "NSG" in coarse else 0)
        if int(found[1]) < least:
            raise ValueError(
                f"index {index!r} has {found[1]} lists, expected at least {least} for {coarse!r}, an index of their "
                f"centroids."
            )
        outer = index.replace(coarse, "")
    halves = re.search(r"IMI\d+x(\d+)", index)
    lists = 2 ** int(halves[1]) if halves else _n_lists(built)
    return max(lists, _rows_for_codes(outer))


def _rows_for_codes(index: str) -> int:
    """As many as a code has values: 256 for 8 bits. LSQ makes do with fewer."""
    sizes = re.findall(r"(?:^|[,(_+])(?:O?PQ|P?RQ)\d+(?:_\d+)?((?:x\d+)*)", index)
    bits = [int(size.rpartition("x")[2] or 8) for size in sizes]
    return max([0, *(2**b for b in bits)])


def train_index(index: Any, gallery: Rows, name: str, *, verbose: bool) -> None:
    """Train on all rows of the gallery, or on a random sample as large as faiss makes use of."""
    if index.is_trained:
        return
    n_rows = min(len(gallery), max(_LEAST_TRAINING_ROWS, _TRAINING_ROWS_PER_CENTROID * _n_lists(index)))
    chosen = np.sort(np.random.default_rng(_TRAINING_SEED).permutation(len(gallery))[:n_rows])
    with progress(total=1, desc=f"Training {name} on {counted(n_rows, 'row')}", verbose=verbose) as bar:
        try:
            index.train(gallery.take(chosen))
        except RuntimeError as error:
            raise ValueError(
                f"index {name!r} cannot be trained on a gallery of {counted(len(gallery), 'row')} of dimension "
                f"{gallery.dim}: {reason(error)}. Use a smaller index, or 'Flat'."
            ) from error
        bar.update()


def add_rows(index: Any, rows: Rows, *, start: int = 0, memory_mb: float, verbose: bool) -> None:
    """Put the rows from ``start`` on into a trained index, in blocks of at most ``memory_mb``."""
    block = max(1024, int(memory_mb * 1e6 / (4 * rows.dim)))
    block = min(block, max(1024, len(rows) // 20))  # a bar that moves
    with progress(total=len(rows) - start, desc="Filling the index", unit=" rows", verbose=verbose) as bar:
        for first in range(start, len(rows), block):
            part = rows.block(first, min(first + block, len(rows)))
            try:
                index.add(part)
            except RuntimeError as error:
                raise ValueError(f"The index of faiss cannot take the embeddings: {reason(error)}.") from error
            bar.update(len(part))


@contextmanager
def _larger_products() -> Iterator[None]:
    """faiss has one setting for the process: the last of several searches at once brings its own value back."""
    with _SEARCHING:
        _searches.append(_searches[0] if _searches else faiss.cvar.distance_compute_blas_database_bs)
        faiss.cvar.distance_compute_blas_database_bs = _COLUMNS
    try:
        yield
    finally:
        with _SEARCHING:
            own = _searches.pop()
            if not _searches:
                faiss.cvar.distance_compute_blas_database_bs = own


def _n_lists(index: Any) -> int:
    ivf = faiss.try_extract_index_ivf(index)
    return 0 if ivf is None else int(ivf.nlist)


def reason(error: Exception) -> str:
    """What faiss says, without the place in its source."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .* at \S+\.(?:cpp|h):\d+: ", "", text)
    text = re.sub(r"^Error: '.*' failed: ?", "", text)
    text = re.sub(r"^[\w:]+:(?=could)", "", text)
    return text.strip().rstrip(".") or "faiss gives no reason"
