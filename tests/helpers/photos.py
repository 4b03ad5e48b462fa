"""Small pictures on disk, a data set of OML over them, tiny random models: shared by the tests of this folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from oml.datasets.images import ImageQueryGalleryDataset, ImageQueryGalleryLabeledDataset
from oml.retrieval.retrieval_results import RetrievalResults
from oml.transforms.images.torchvision import get_normalisation_resize_torch
from PIL import Image
from torch import nn

from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRSiamese

SIZE, DEPTH = 32, 4
ARGS: dict[str, Any] = {
    "arch": "vit_tiny_patch16_224",
    "timm_args": {"img_size": SIZE, "patch_size": 8, "depth": DEPTH, "embed_dim": 48},
}


def livelier(model: nn.Module) -> nn.Module:
    """Larger random weights: at their usual size every pair has nearly the same score."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.15 if parameter.ndim > 1 else 0.5))
    return model.eval()


def small_model(**kwargs: Any) -> STIRSiamese:
    model = STIRSiamese(IRTExtractor(None, **ARGS), mlp_hidden_dims=[16], **kwargs)
    livelier(model)
    return model


class CountingDataset(ImageQueryGalleryLabeledDataset):
    """Counts how often each picture is decoded (in this process)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decoded: Counter[int] = Counter()

    def __getitem__(self, item: int) -> dict[str, Any]:
        self.decoded[item] += 1
        return super().__getitem__(item)


def small_frame(root: Path, n: int = 12, side: int = 40) -> pd.DataFrame:
    """A dataframe of ``n`` noisy pictures, three per label, all queries and gallery."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        path = root / f"{i}.png"
        pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(path)
        rows.append({"path": path.name, "label": i // 3, "split": "validation", "is_query": True, "is_gallery": True})
    return pd.DataFrame(rows)


def small_dataset(root: Path, df: pd.DataFrame | None = None, labeled: bool = True, **kwargs: Any) -> Any:
    df = small_frame(root) if df is None else df
    constructor = CountingDataset if labeled else ImageQueryGalleryDataset
    kwargs.setdefault("transform", get_normalisation_resize_torch(im_size=SIZE))
    return constructor(df, dataset_root=root, **kwargs)


def some_results(dataset: Any, n_items: int = 8) -> RetrievalResults:
    """Retrieval by random embeddings."""
    embeddings = torch.randn(len(dataset), 6, generator=torch.Generator().manual_seed(1))
    return RetrievalResults.from_embeddings(embeddings, dataset=dataset, n_items=n_items, verbose=False)
