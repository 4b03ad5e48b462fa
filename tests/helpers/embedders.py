"""Small embedders, and what an index answers."""

from __future__ import annotations

import torch
from oml.registry.transforms import get_transforms_by_cfg

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.retrieval import Embedder


def make_embedder(seed: int = 0, *, crop: int = 32, pooling: str = "cls", batch_size: int = 32, **more) -> Embedder:
    torch.manual_seed(seed)
    extractor = IRTExtractor(weights=None, pooling=pooling, **{**TINY_PLAIN, **more})
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": crop}})
    return Embedder(extractor, transform, batch_size=batch_size, device="cpu")


def paths_of(hits) -> list[list[str]]:
    return [[hit.path for hit in row] for row in hits]
