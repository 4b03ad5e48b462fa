"""Repair of OML: during re-ranker training, validation images are not decoded.

The metric only needs their stored embeddings, but OML's loader fetches these together with the image of every item.
The re-ranker itself still reads the images of its pairs, from the metric's data set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from oml.const import EMBEDDINGS_KEY
from torch.utils.data import DataLoader, Dataset
from wrapt import register_post_import_hook

from oml_vit_ext.oml_patches.replacing import replace

logger = logging.getLogger(__name__)

_PIPELINE = "oml.lightning.pipelines.train_postprocessor"


class EmbeddingsDataset(Dataset[dict[str, Any]]):
    """The items of a data set of OML, without their images: index and embedding."""

    def __init__(self, dataset: Any) -> None:
        self.index_key = dataset.index_key
        self.embeddings = dataset.extra_data[EMBEDDINGS_KEY]

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {self.index_key: item, EMBEDDINGS_KEY: self.embeddings[item]}


def validate_on_embeddings(our_postprocessors: Mapping[str, Any]) -> None:
    """Apply the repair, for our re-rankers, when OML's pipeline is imported."""
    register_post_import_hook(lambda pipeline: load_embeddings_alone(pipeline, our_postprocessors), _PIPELINE)


def load_embeddings_alone(pipeline: ModuleType, our_postprocessors: Mapping[str, Any]) -> None:
    """Replace the validation loader of the pipeline where the config names one of ``our_postprocessors``."""

    def wrap(get_loaders: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        def get_loaders_with_embeddings(cfg: Mapping[str, Any]) -> tuple[Any, ...]:
            loader_train, loader_val, *datasets = get_loaders(cfg)
            if (cfg.get("postprocessor") or {}).get("name") in our_postprocessors:
                # In this process: a worker would take longer to start than to hand over rows of a tensor.
                loader_val = DataLoader(EmbeddingsDataset(loader_val.dataset), batch_size=loader_val.batch_size)
                logger.info("open-metric-learning: validation of the re-ranker decodes the images of its pairs alone")
            return loader_train, loader_val, *datasets

        return get_loaders_with_embeddings

    replace(pipeline, "get_loaders_with_embeddings", wrap, "our re-rankers are validated on embeddings alone")
