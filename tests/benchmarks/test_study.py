"""The study's own parts: which labels are held out, which pairs are drawn, what its figures say."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from helpers import ROOT
from oml_vit_ext.extractors import IRTExtractor


@pytest.fixture()
def study(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import study

    return study


@pytest.fixture()
def reranking(study):
    import study_reranking

    return study_reranking


def test_each_training_label_is_held_out_once(study):
    df = pd.read_csv(ROOT / "examples/photos/df.csv")
    held_out = []
    for third in range(3):
        split = study.held_out(df, third)
        assert set(split.label) == set(df.label[df.split == "train"]), "labels of the test are not in it"
        by_split = split.groupby("label").split.agg(set).map(tuple)
        assert set(by_split) == {("train",), ("validation",)}, "a label is in one of the two"
        assert split[split.split == "validation"][["is_query", "is_gallery"]].all(axis=None)
        held_out += sorted(split.label[split.split == "validation"].unique())
    assert sorted(held_out) == sorted(df.label[df.split == "train"].unique())


def test_dimensions_for_90_percent(study):
    scale = torch.tensor([3.0, 1.0, 0.5, 0.1])  # variances 9, 1, 0.25, 0.01 of 10.26: 0.877, then 0.975
    embeddings = torch.cat([torch.diag(scale), -torch.diag(scale)])
    assert study.dims90(embeddings) == 2
    assert study.dims90(embeddings[:, :1].repeat(1, 4)) == 1


def test_histograms_hold_every_pair_once(study):
    embeddings = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    found = study.similarities(embeddings, torch.tensor([0, 0, 0, 1, 1, 2]))
    assert sum(found["positive"]) == 3 + 1 and sum(found["negative"]) == 15 - 4


def test_pairs_are_drawn_among_the_nearest(reranking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reranking, "ANCHORS", 4)
    monkeypatch.setattr(reranking, "NEAREST", 2)
    labels = torch.arange(4).repeat_interleave(5)
    embeddings = torch.nn.functional.normalize(torch.randn(20, 8), dim=1)
    stage = SimpleNamespace(labels=labels, similarity=embeddings @ embeddings.T)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        first, second = reranking.draw_pairs(stage, generator)
        assert len(first) == 8 and len(set(first.tolist())) == 4
        for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            positive = i < 4
            rivals = [j for j in range(20) if j != a and bool(labels[j] == labels[a]) == positive]
            nearest = sorted(rivals, key=lambda j: -float(stage.similarity[a, j]))[:2]
            assert b in nearest


def test_what_is_chosen_is_best_on_held_out_labels(reranking, study, tmp_path):
    for method, cmc1 in (("irt_l", 0.8), ("irt_r", 0.9), ("irt_r", 0.7), ("arcface", 0.95)):
        study.add(tmp_path / "study_choices.json", {"method": method, "settings": {"x": cmc1}, "cmc1": cmc1, "map5": 0})
    assert reranking.chosen_first_stage(SimpleNamespace(results=tmp_path)) == ("irt_r", {"x": 0.9})
    assert study.chosen(tmp_path / "study_choices.json", "irt_l") == {"x": 0.8}


def test_a_trained_transformer_is_put_behind_a_stem(study):
    small = {"img_size": 64, "depth": 2}
    hybrid = IRTExtractor(None, "vit_tiny_r_s16_p8_224", timm_args=small).backbone
    trained = IRTExtractor(None, "vit_tiny_patch16_224", timm_args=small).backbone
    before = {name: tensor.clone() for name, tensor in hybrid.state_dict().items()}
    study.put_behind_stem(hybrid, trained)
    for name, tensor in hybrid.state_dict().items():
        if name.startswith("patch_embed."):
            assert torch.equal(tensor, before[name]), name
        elif name != "pos_embed":
            assert torch.equal(tensor, trained.state_dict()[name]), name
    assert torch.equal(hybrid.pos_embed[:, 0], trained.pos_embed[:, 0]), "the CLS token's, the others are resampled"
    deeper = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={**small, "depth": 3}).backbone
    with pytest.raises(SystemExit, match=r"The transformers differ.*blocks\.2"):
        study.put_behind_stem(hybrid, deeper)
