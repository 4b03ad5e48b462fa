"""Pictures of where the model of an index looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import Compose, ToTensor

from helpers.embedders import make_embedder
from oml_vit_ext.app.attention import attention_pictures
from oml_vit_ext.images.reading import read_image
from oml_vit_ext.pictures import attention_maps
from oml_vit_ext.retrieval import Embedder


def test_the_brightest_patch_is_the_maps(photos: Path):
    embedder = make_embedder()
    files = [photos / "05.jpg", photos / "06.jpg"]
    pictures = attention_pictures(embedder, files, [None, (0, 0, 20, 20)])
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    whole = attention_pictures(embedder, files[1:])[0]
    assert not np.array_equal(np.asarray(pictures[1]), np.asarray(whole)), "the box counts"
    maps = attention_maps(embedder.extractor, embedder.transform(read_image(files[0]))[None])[0]
    row, column = divmod(int(maps.argmax()), maps.shape[1])
    colours = np.asarray(pictures[0], dtype=float)
    yellow = (colours[..., 0] - colours[..., 2])[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].mean()
    assert yellow > np.median(colours[..., 0] - colours[..., 2])


def test_a_box_beyond_the_photo_is_cut_as_in_the_index(photos: Path):
    embedder, file = make_embedder(), photos / "06.jpg"
    width, height = read_image(file).size
    beyond, inside = (-9, -9, width - 5, height + 30), (0, 0, width - 5, height)
    with_box, cut = (np.asarray(attention_pictures(embedder, [file], [box])[0]) for box in (beyond, inside))
    np.testing.assert_array_equal(with_box, cut)
    np.testing.assert_array_equal(*(embedder.embed_all([file], [box]) for box in (beyond, inside)))


def test_a_model_that_cannot_say(photos: Path):
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    with pytest.raises(TypeError, match="expected 'irt' or 'hybrid_vit'"):
        attention_pictures(Embedder(Mean(), Compose([ToTensor()]), device="cpu"), [photos / "05.jpg"])
