"""Tokens beside indexes: where they lie, and which are used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torchvision.transforms as t
from PIL import Image

from helpers.photos import SIZE, small_model
from oml_vit_ext.commands.kept_tokens import token_folder, tokens_beside
from oml_vit_ext.reranking import TokenStore

TO_TENSOR = t.Compose([t.Resize((SIZE, SIZE)), t.ToTensor()])


def test_they_lie_beside_the_index(in_tmp_path: Path) -> None:
    assert token_folder("photo_index/") == in_tmp_path / "photo_index.tokens"
    assert token_folder("images.db") == in_tmp_path / "images.db.tokens"
    with pytest.raises(ValueError, match="Tokens lie beside an index, expected one in a folder"):
        token_folder("https://host:19530")


def test_those_of_all_indexes_are_used_and_of_other_models_none(in_tmp_path: Path) -> None:
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{i}.png")
    model = small_model(join_layer=1)
    paths, boxes = [in_tmp_path / f"{i}.png" for i in range(3)], [None] * 3
    assert tokens_beside(["first", "second"], model, TO_TENSOR) is None
    for place, name, precision in (("first", "0.png", "half"), ("second", "2.png", "int8")):
        images = SimpleNamespace(root=in_tmp_path, images=pd.DataFrame({"path": [name], "box": [""]}))
        TokenStore(token_folder(place), model, TO_TENSOR, precision=precision).sync(images)
    kept = tokens_beside(["first", "second", "https://host:19530"], model, TO_TENSOR)
    files = kept.files(paths, boxes)
    assert files[1] is None
    assert in_tmp_path / "first.tokens" in files[0].parents and in_tmp_path / "second.tokens" in files[2].parents
    assert kept.model is model and kept.transform is TO_TENSOR
    with pytest.warns(UserWarning, match="first.tokens holds the tokens of another re-ranker"):
        assert tokens_beside(["first"], small_model(join_layer=2), TO_TENSOR) is None
