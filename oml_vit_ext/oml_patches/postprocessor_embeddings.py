"""Addition to OML: its metric hands the embeddings to postprocessors that ask for them.

OML's ``EmbeddingMetrics`` calls ``process(rr, dataset)``: a postprocessor that searches again has nothing to search
with. Those whose ``process`` has no argument ``embeddings``, all of OML's, are called as ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from oml.interfaces.retrieval import IRetrievalPostprocessor
from wrapt import register_post_import_hook

from oml_vit_ext.oml_patches.replacing import replace

_METRICS = "oml.metrics.embeddings"


class WithEmbeddings(IRetrievalPostprocessor):
    """A postprocessor as OML calls it, which adds the embeddings to the call."""

    def __init__(self, postprocessor: Any, embeddings: Any) -> None:
        self._postprocessor = postprocessor
        self._embeddings = embeddings

    def process(self, rr: Any, dataset: Any) -> Any:
        return self._postprocessor.process(rr=rr, dataset=dataset, embeddings=self._embeddings)

    def __getattr__(self, name: str) -> Any:  # top_n
        return getattr(self._postprocessor, name)


def hand_over_embeddings() -> None:
    """Apply the addition when OML's metric is imported."""
    register_post_import_hook(hand_over_in, _METRICS)


def hand_over_in(metrics: ModuleType) -> None:
    """Have ``EmbeddingMetrics`` of this module hand over what it has accumulated."""

    def wrap(compute: Callable[[Any], None]) -> Callable[[Any], None]:
        def compute_retrieval_results(self: Any) -> None:
            postprocessor = self.postprocessor
            if postprocessor is None or "embeddings" not in inspect.signature(postprocessor.process).parameters:
                return compute(self)
            self.postprocessor = WithEmbeddings(postprocessor, self.acc.storage[self._acc_embeddings_key])
            try:
                return compute(self)
            finally:
                self.postprocessor = postprocessor

        return compute_retrieval_results

    effect = "EmbeddingMetrics hands its embeddings to postprocessors whose process() has that argument"
    replace(metrics.EmbeddingMetrics, "_compute_retrieval_results", wrap, effect)
