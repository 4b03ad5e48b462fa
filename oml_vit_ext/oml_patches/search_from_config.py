"""Addition to OML: the key ``faiss_search`` of a config says how a pipeline searches when it validates.

========================================  =============================================================================
value                                     search
========================================  =============================================================================
``auto``, or no such key                  through faiss from ``LEAST_PAIRS`` queries × gallery images on; OML's below
``true``                                  through faiss
``false``                                 OML's
``{index, search_params, memory_mb}``     through faiss, with these arguments of ``retrieval.faiss_search``
========================================  =============================================================================

The neighbours are OML's, to ties, unless ``index`` names an approximate one. ``auto`` leaves embeddings on a GPU, and
what stands in a ``with faiss_search(...)`` block of the caller's, as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.oml_patches.replacing import replace

if TYPE_CHECKING:  # the folder imports faiss, which registering names must not
    from oml_vit_ext.retrieval.faiss_search import faiss_search

logger = logging.getLogger(__name__)

KEY, AUTO = "faiss_search", "auto"
# 2 000 images against themselves; benchmarks/bench_search_sizes.py.
LEAST_PAIRS = 4_000_000
_ARGUMENTS = ("index", "search_params", "memory_mb")
_METRICS = "oml.metrics.embeddings"
_PIPELINES = ("validate", "train", "train_postprocessor")

_waiting: list[faiss_search | None] = []  # of the pipeline that has read its config and not yet made its metric
_has_told: list[bool] = []


def search_as_configured() -> None:
    """Apply the addition when OML's metric and pipelines are imported."""
    register_post_import_hook(search_in_metrics, _METRICS)
    for name in _PIPELINES:
        register_post_import_hook(read_key_in, f"oml.lightning.pipelines.{name}")


def search_of(setting: Any) -> faiss_search | None:
    """How to search for a value of the key; ``None``: as OML.

    Raises:
        ValueError: It is none of the values above.
    """
    from oml_vit_ext.retrieval.faiss_search import faiss_search

    if setting in (None, AUTO):
        return faiss_search(least_pairs=LEAST_PAIRS)
    if isinstance(setting, bool):
        return faiss_search() if setting else None
    if not isinstance(setting, Mapping):
        raise ValueError(
            f"{KEY} is {setting!r}, expected {AUTO}, true, false, or arguments of faiss_search: "
            f"{', '.join(_ARGUMENTS)}."
        )
    for name in setting:
        if name not in _ARGUMENTS:
            raise ValueError(unknown_name(f"argument of {KEY}:", name, _ARGUMENTS))
    return faiss_search(**setting)


def read_key_in(pipeline: ModuleType) -> None:
    """Have a pipeline remember what its config says until it makes its metric, the next thing that it does with it.

    The function that people call is left as it is: a script may have imported it before this package is registered.
    """

    def wrap(as_dict: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        def config(cfg: Any) -> dict[str, Any]:
            plain = as_dict(cfg)
            _waiting[:] = [search_of(plain.get(KEY))]
            return plain

        return config

    replace(pipeline, "dictconfig_to_dict", wrap, f"{pipeline.__name__} understands {KEY}")


def search_in_metrics(metrics: ModuleType) -> None:
    """Have the metric of a pipeline search as its config says; metrics made elsewhere search as ever."""

    def take(init: Callable[..., None]) -> Callable[..., None]:
        def init_and_take(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            self._search_of_config = _waiting.pop() if _waiting else None

        return init_and_take

    def search(compute: Callable[[Any], None]) -> Callable[[Any], None]:
        def compute_as_configured(self: Any) -> None:
            search = getattr(self, "_search_of_config", None)
            if search is None or (search.least_pairs and search.is_active()):
                return compute(self)
            _tell_once(search, self)
            with search:
                return compute(self)

        return compute_as_configured

    replace(metrics.EmbeddingMetrics, "__init__", take, f"the metric of a pipeline searches as {KEY} says")
    replace(
        metrics.EmbeddingMetrics, "_compute_retrieval_results", search, f"validation searches as {KEY} of a config says"
    )


def _tell_once(search: faiss_search, metric: Any) -> None:
    n_queries, n_gallery = metric.dataset.get_query_ids().numel(), metric.dataset.get_gallery_ids().numel()
    if not _has_told and search.takes(n_queries, n_gallery, metric.acc.storage[metric._acc_embeddings_key]):
        _has_told.append(True)
        logger.info(
            "open-metric-learning: %d queries x %d gallery images are searched through faiss, index %s; "
            "%s: false turns that off",
            n_queries,
            n_gallery,
            search.settings.index,
            KEY,
        )
