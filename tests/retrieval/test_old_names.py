"""Code that says descriptor and describe goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.embedders import make_embedder, paths_of
from oml_vit_ext.retrieval import SearchIndex, list_images, search_shards


def test_the_names_of_earlier_versions_work(tmp_path: Path) -> None:
    for level in (10, 100, 200):
        Image.new("RGB", (30, 30), (level, 0, 200 - level)).save(tmp_path / f"{level}.png")
    embedder = make_embedder()
    paths = [tmp_path / path for path in list_images(tmp_path, tmp_path).path]
    x = embedder.embed_all(paths)
    np.testing.assert_array_equal(embedder.describe_all(paths), x)
    (batch,) = embedder.describe(paths)
    np.testing.assert_array_equal(batch.descriptors, x)

    index = SearchIndex(tmp_path, embedder.fingerprint)
    assert index.add_descriptors(tmp_path, descriptors=x, fingerprint=embedder.fingerprint).added == 3
    expected = paths_of(index.search(x, 2))
    assert paths_of(index.search(descriptors=x, k=2)) == expected
    assert paths_of(search_shards([index], descriptors=x, k=2)) == expected
    with pytest.raises(TypeError, match="multiple values for argument 'embeddings'"):
        index.search(x, descriptors=x)
    with pytest.raises(TypeError, match="descriptors"):
        index.search(embeddings=x, descriptors=x)
