"""A model whose embeddings can be told in advance: the mean colour of an image, times a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as t
from PIL import Image
from torch import Tensor, nn

from oml_vit_ext.retrieval import Embedder


class MeanColour(nn.Module):
    """``(B, 3, H, W)`` -> ``(B, 3)``."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.mean(dim=(2, 3))


def mean_colour_embedder(weight: float = 1.0, **settings: Any) -> Embedder:
    return Embedder(MeanColour(weight), t.Compose([t.ToTensor()]), device="cpu", **settings)


def paint(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    """An image file of one colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)
    return file
