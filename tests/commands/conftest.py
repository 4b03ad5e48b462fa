"""A folder of small photos, its dataframe, and a config of a tiny model over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

N_LABELS, PER_LABEL = 8, 5


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    """Eight products with five photos each in one colour and some noise."""
    rng = np.random.default_rng(0)
    for label in range(N_LABELS):
        folder = tmp_path / "photos" / f"product {label}"
        folder.mkdir(parents=True)
        colour = rng.integers(0, 255, 3)
        for i in range(PER_LABEL):
            pixels = np.clip(colour + rng.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"IMG {i}.JPG")
    return tmp_path / "photos"


@pytest.fixture()
def frame(photos: Path) -> pd.DataFrame:
    """Its dataframe, which is there as ``df.csv`` as well: six labels to train, two to validate."""
    from oml_vit_ext.datasets import convert

    return convert("folders", photos, validation_share=0.25, verbose=False)


@pytest.fixture()
def tiny(frame: pd.DataFrame, photos: Path) -> list[str]:
    """Overrides of ``irt/train_photos`` for a training of seconds over these photos."""
    return [
        *(f"dataset_root={photos}", "arch=vit_tiny_patch16_224", "pretrained=null", "num_workers=0", "accelerator=cpu"),
        *("+timm_args.img_size=32", "+timm_args.patch_size=8", "+timm_args.depth=1", "+timm_args.embed_dim=24"),
        *("images.train_resize=32", "images.test_resize=32", "images.crop=32", "iterations=2", "valid_iterations=2"),
    ]
