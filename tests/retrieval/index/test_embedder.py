"""Worker processes that read images."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, ToTensor

from oml_vit_ext.retrieval import Embedder


class _SlowFirst:
    """The first image takes so long that the other worker reads everything it may meanwhile."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size[0] == 9:
            time.sleep(1.5)
        return image


class _Mean(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) + 0.1


@pytest.fixture()
def few_open_files() -> Iterator[None]:
    """Fewer than two workers' images."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 60, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_images_of_many_sizes_from_workers_need_few_open_files(few_open_files: None, tmp_path: Path) -> None:
    sizes = [9] + [2 + i % 5 for i in range(150)]
    for i, size in enumerate(sizes):
        Image.new("RGB", (size, 3), (i, 0, 0)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "020.png").write_text("no image")
    embedder = Embedder(_Mean(), Compose([_SlowFirst(), ToTensor()]), device="cpu", batch_size=30, num_workers=2)
    batches = list(embedder.embed(sorted(tmp_path.iterdir())))
    red = np.concatenate([batch.embeddings[:, 0] for batch in batches])
    expected = [i / 255 + 0.1 for i in range(len(sizes)) if i != 20]
    np.testing.assert_allclose(red, expected, atol=1e-6)
    assert [position for batch in batches for position, _ in batch.broken] == [20]
