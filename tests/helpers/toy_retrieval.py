"""Data sets without images for the tests of retrieval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from oml.datasets.dataframe import DFLabeledDataset, DFQueryGalleryLabeledDataset
from oml.interfaces.datasets import IBaseDataset
from torch import Tensor

N, DIM = 150, 16


class Items(IBaseDataset):
    """A data set without content: retrieval asks only for its length and columns."""

    input_tensors_key, index_key = "input_tensors", "idx"

    def __init__(self, n: int) -> None:
        self.n, self.extra_data = n, {}

    def __len__(self) -> int:
        return self.n


def frame(split: str = "all", n: int = N, n_labels: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    df = pd.DataFrame({"label": rng.integers(0, n_labels, n), "is_query": True, "is_gallery": True})
    if split == "separate":
        df["is_query"] = rng.random(n) < 0.3
        df["is_gallery"] = ~df.is_query
    elif split == "overlapping":
        df["is_query"] = rng.random(n) < 0.5
        df["is_gallery"] = ~df.is_query | (rng.random(n) < 0.5)
    return df


def sequences(n: int = N) -> list[str]:
    """A few long sequences and many short ones, by name."""
    return [f"long_{i % 2}" if i < n // 2 else f"short_{i // 3}" for i in range(n)]


def embeddings_of(n: int = N, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)) * scale


def labelled(df: pd.DataFrame) -> DFQueryGalleryLabeledDataset:
    return DFQueryGalleryLabeledDataset(Items(len(df)), df)


def labels_only(n: int, names: list[str] | None = None) -> DFLabeledDataset:
    df = frame(n=n)
    if names:
        df["sequence"] = names
    return DFLabeledDataset(Items(n), df)
