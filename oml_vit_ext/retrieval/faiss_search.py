"""Makes OML's own pipelines search through faiss."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import TracebackType
from typing import Any

import oml.retrieval.retrieval_results as oml_results
import torch

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.retrieval.retrieve import Neighbours, knn, knn_qg
from oml_vit_ext.retrieval.settings import EXACT, MEMORY_MB, Settings

# With the threads that entered them. The innermost search is the last; OML's own functions are put back when the list
# is empty again.
_active: list[tuple[int, faiss_search]] = []
_oml_functions: dict[str, Any] = {}
_SWITCHING = threading.Lock()


class faiss_search:  # named like the functions of contextlib
    """``with faiss_search():`` OML's ``RetrievalResults`` are found through faiss.

    That covers everything in OML that searches: validation metrics, the metrics during training and re-ranker
    training. Everything is as before after the block, also when it is left by an exception. Blocks can be nested (the
    inner one counts), and one object can be used several times. The switch holds for the whole process; a thread with a
    block of its own searches as that one says.

    Args:
        index, search_params, memory_mb: As in :func:`oml_vit_ext.retrieval.retrieve`.
        least_pairs: Searches of fewer queries × gallery images, and those of embeddings on a GPU, are left to OML; 0:
            none are.

    Raises:
        ValueError: ``memory_mb`` is not positive, ``least_pairs`` is no whole number. What else may be wrong is told by
            the first search.
    """

    def __init__(
        self, index: str = EXACT, *, search_params: str = "", memory_mb: float = MEMORY_MB, least_pairs: int = 0
    ) -> None:
        self.settings = Settings(index, search_params, memory_mb)
        self.least_pairs = check_whole("least_pairs", least_pairs)

    @staticmethod
    def is_active() -> bool:
        """Whether this is called inside such a block."""
        return bool(_active)

    def takes(self, n_queries: int, n_gallery: int, embeddings: Any) -> bool:
        """Whether a search goes through faiss."""
        on_cpu = getattr(embeddings, "device", None) in (None, torch.device("cpu"))
        return self.least_pairs == 0 or (on_cpu and n_queries * n_gallery >= self.least_pairs)

    def __enter__(self) -> faiss_search:
        with _SWITCHING:
            if not _active:
                # The names by which RetrievalResults calls them; oml.functional.knn itself stays as it is.
                for name, ours in (("batched_knn", _batched_knn), ("batched_knn_qg", _batched_knn_qg)):
                    _oml_functions[name] = getattr(oml_results, name)
                    setattr(oml_results, name, ours)
            _active.append((threading.get_ident(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _SWITCHING:
            mine = [i for i, entered in enumerate(_active) if entered == (threading.get_ident(), self)]
            others = [i for i, (_, entered) in enumerate(_active) if entered is self]  # left by another thread
            del _active[max(mine or others)]
            if not _active:
                for name, theirs in _oml_functions.items():
                    setattr(oml_results, name, theirs)
                _oml_functions.clear()


def _batched_knn(
    embeddings: Any, ids_query: Any, ids_gallery: Any, top_n: int, bs: Any = None, verbose: bool = False, **more: Any
) -> Neighbours:
    if not _innermost().takes(len(ids_query), len(ids_gallery), embeddings):
        given = {"ids_query": ids_query, "ids_gallery": ids_gallery, "top_n": top_n, "verbose": verbose, **more}
        return _of_oml("batched_knn", bs, embeddings=embeddings, **given)
    return knn(embeddings, ids_query, ids_gallery, n_items=top_n, settings=_settings(verbose), **more)


def _batched_knn_qg(
    embeddings_query: Any, embeddings_gallery: Any, top_n: int, bs: Any = None, verbose: bool = False, **more: Any
) -> Neighbours:
    if not _innermost().takes(len(embeddings_query), len(embeddings_gallery), embeddings_query):
        given = {"embeddings_query": embeddings_query, "embeddings_gallery": embeddings_gallery, "top_n": top_n, **more}
        return _of_oml("batched_knn_qg", bs, verbose=verbose, **given)
    return knn_qg(embeddings_query, embeddings_gallery, n_items=top_n, settings=_settings(verbose), **more)


def _of_oml(name: str, bs: Any, **given: Any) -> Neighbours:
    found: Neighbours = _oml_functions[name](**given, **({} if bs is None else {"bs": bs}))
    return found


def _innermost() -> faiss_search:
    """This thread's innermost block, or that of whoever has one."""
    with _SWITCHING:
        mine = [entered for thread, entered in _active if thread == threading.get_ident()]
        others = [entered for _, entered in _active]
    # None is left where another thread's block has ended since the search began.
    return (mine or others)[-1] if others else faiss_search()


def _settings(verbose: bool) -> Settings:
    """OML's batch size ``bs`` has no use: ``memory_mb`` bounds the batches."""
    return replace(_innermost().settings, verbose=verbose)
