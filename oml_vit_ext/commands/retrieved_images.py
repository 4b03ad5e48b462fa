"""What commands with pictures share: the validation images of a config, what is retrieved, how an image looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from oml.datasets.images import ImageQueryGalleryLabeledDataset, get_retrieval_images_datasets
from oml.inference.abstract import inference
from oml.interfaces.models import IExtractor
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.pictures import Strip, mean_and_std, to_picture
from oml_vit_ext.runs import retrieve_as_validated


class RetrievedImages:
    """The validation images of a config, and the strips of pictures that retrieval results stand for.

    Attributes:
        dataset: Queries and gallery.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        transform = get_transforms_by_cfg(cfg.transforms_val)
        self._mean, self._std = mean_and_std(transform)
        dataset: Any = get_retrieval_images_datasets(
            Path(cfg.dataset_root), None, transform, dataframe_name=cfg.dataframe_name, verbose=False
        )[1]
        self.dataset: ImageQueryGalleryLabeledDataset = dataset
        self._query_ids, self._gallery_ids = dataset.get_query_ids().tolist(), dataset.get_gallery_ids().tolist()

    def retrieve(self, extractor: IExtractor, n_items: int) -> RetrievalResults:
        """The first ``n_items`` gallery images per query."""
        cfg = self._cfg
        descriptors = inference(extractor, self.dataset, cfg.bs_val, num_workers=cfg.num_workers, verbose=True)
        return self.results_of(descriptors, n_items)

    def results_of(self, embeddings: Any, n_items: int) -> RetrievalResults:
        """The same from the embeddings ``(N, D)`` of the images, in the order of the config's validation."""
        return retrieve_as_validated(embeddings, self.dataset, self._cfg, n_items, top_n=n_items)

    def tensor(self, image_id: int) -> Tensor:
        """``(3, H, W)``, as the model takes it."""
        tensor: Tensor = self.dataset[image_id][self.dataset.input_tensors_key]
        return tensor

    def picture(self, image_id: int) -> NDArray[Any]:
        """``(H, W, 3)``: what the model sees."""
        return to_picture(self.tensor(image_id), self._mean, self._std)

    def ids(self, results: RetrievalResults, query: int, top: int) -> list[int]:
        """The query's image and the first retrieved ones."""
        found = results.retrieved_ids[query][:top].tolist()
        return [self._query_ids[query], *(self._gallery_ids[i] for i in found)]

    def strip(self, results: RetrievalResults, query: int, top: int) -> Strip:
        """The pictures of :meth:`ids`, with ground truth and distances."""
        pictures = [self.picture(i) for i in self.ids(results, query, top)]
        right = right_ones(results, query)[:top].tolist()
        return Strip(pictures[0], pictures[1:], right, results.distances[query][:top].tolist())


def right_ones(results: RetrievalResults, query: int) -> Tensor:
    """Per retrieved image whether it belongs to the query's ground truth."""
    truth: Any = results.gt_ids
    return torch.isin(results.retrieved_ids[query], truth[query])


def spread(items: Sequence[int], n: int) -> list[int]:
    """At most ``n`` of the items, evenly spaced, the first and the last among them."""
    n = min(n, len(items))
    return [items[round(i * (len(items) - 1) / max(1, n - 1))] for i in range(n)]


def device_of(cfg: DictConfig) -> str:
    """As OML's pipelines choose: ``null`` is the GPU where there is one."""
    on_gpu = cfg.accelerator == "gpu" or (cfg.accelerator is None and torch.cuda.is_available())
    return "cuda" if on_gpu else "cpu"
