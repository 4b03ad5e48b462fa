"""``oml-vit-ext fit-head``: embeddings once, a head each time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from oml.registry.models import get_extractor_by_cfg
from oml.utils.misc import dictconfig_to_dict

from helpers import ROOT
from helpers.configs import composed
from oml_vit_ext.commands.fit_head import fit_head
from oml_vit_ext.extractors import load_head
from oml_vit_ext.retrieval import Embedder, SearchIndex


def test_it_embeds_once_and_fits_each_time(
    demo_slice: Path, in_tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    weights = f"pretrained={ROOT}/examples/demo_weights/vit_tiny_emoji.safetensors"
    tiny = ["irt/variant=irt_o", f"dataset_root={demo_slice}", "bs_val=16", weights]
    loss = "{name: pml, args: {loss: {name: SupConLoss}}}"
    fit_head("irt/validate_demo", tiny, in_tmp_path / "head.safetensors", loss, "8", steps=3)
    df = pd.read_csv(demo_slice / "df.csv")
    n_train = int((df.split == "train").sum())
    out = capsys.readouterr().out
    assert f"{n_train} added" in out and f"Head 192 -> 8, fitted on {n_train} images" in out
    index = SearchIndex.load(in_tmp_path / "head.embeddings")
    assert index.embeddings.shape == (n_train, 192)
    assert index.images.label.tolist() == df.label[df.split == "train"].astype(str).tolist()

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("an image was embedded again")

    monkeypatch.setattr("oml_vit_ext.retrieval.index.embedder.Embedder.embed", decode)
    fit_head("irt/validate_demo", tiny, in_tmp_path / "head.safetensors", "contrastive_xbm", "16,4", steps=3)
    assert f"{n_train} unchanged" in capsys.readouterr().out
    head, fitted_on = load_head(in_tmp_path / "head.safetensors")
    assert head(torch.rand(1, 192)).shape == (1, 4) and fitted_on == index.fingerprint.weights

    overrides = ["irt/variant=head", weights, f"head={in_tmp_path}/head.safetensors"]
    extractor = get_extractor_by_cfg(composed("irt/validate_demo", *overrides).extractor)
    assert extractor.feat_dim == 4


def test_an_index_of_all_images_is_not_emptied(demo_slice: Path, in_tmp_path: Path):
    weights = f"pretrained={ROOT}/examples/demo_weights/vit_tiny_emoji.safetensors"
    tiny = ["irt/variant=irt_o", f"dataset_root={demo_slice}", "bs_val=16", weights]
    cfg = composed("irt/validate_demo", *tiny)
    embedder = Embedder.from_config(*map(dictconfig_to_dict, (cfg.extractor, cfg.transforms_val)))
    df = pd.read_csv(demo_slice / "df.csv")
    photos, _ = SearchIndex.build(df.iloc[[0, -1]], embedder, root=demo_slice)
    photos.save(in_tmp_path / "photo_index")
    with pytest.raises(ValueError, match=r"is an index of other images, too \(.*name another folder with --embeddings"):
        fit_head("irt/validate_demo", tiny, steps=1, embeddings=in_tmp_path / "photo_index")
    assert len(SearchIndex.load(in_tmp_path / "photo_index")) == 2


def test_wrong_input_is_one_sentence(demo_slice: Path, in_tmp_path: Path):
    with pytest.raises(ValueError, match="--dims is '8x', expected whole numbers"):
        fit_head("irt/validate_demo", ["irt/variant=irt_o"], dims="8x")
    df = pd.read_csv(demo_slice / "df.csv")
    df[df.split == "validation"].to_csv(in_tmp_path / "none.csv", index=False)
    with pytest.raises(ValueError, match="has no training rows, on which a head is fitted"):
        fit_head("irt/validate_demo", ["irt/variant=irt_o", f"dataframe_name={in_tmp_path}/none.csv"])
