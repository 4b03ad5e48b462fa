"""The scripts behind the tables of ``docs/results/experiments.md``, small: figures, pictures, resuming."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from helpers.scripts import printed_by


def test_ablation_of_dtop_goes_on_where_it_stopped(demo_slice: Path, tmp_path: Path):
    small = [f"dataset_root={demo_slice}", "hybrid.timm_args.depth=2", "multi_layer=2", "num_classes=12"]
    small += ["sampler.args.batch_size=8", "dtop/criterion@criterion=irt"]
    shared = ["--seeds", "1", "--iterations", "2", "--output", "ablation", *small]
    first = printed_by("ablation_dtop", tmp_path, "--variants", "hybrid", *shared)
    row = pd.read_csv(tmp_path / "ablation" / "ablation.csv")
    both = printed_by("ablation_dtop", tmp_path, "--variants", "hybrid,full", *shared)
    rows = pd.read_csv(tmp_path / "ablation" / "ablation.csv")
    pd.testing.assert_frame_equal(rows.head(1), row)  # its seconds too: the finished run was not repeated
    assert rows.variant.tolist() == ["hybrid", "full"] and rows.cmc_1.between(0, 1).all()
    assert "+ convolutional stem" in first and "+ enhanced locality" not in first and "+ enhanced locality" in both
    assert f"{rows.cmc_1[1]:.3f}" in both


def test_comparison_of_rerankers_measures_quality_and_cost(demo_slice: Path, tmp_path: Path):
    small = [f"dataset_root={demo_slice}", "sampler.args.n_labels=4", "max_epochs=1"]
    printed = printed_by("compare_rerankers", tmp_path, "--join-layers", "2", "--oml", "--output", "out", *small)
    rows = pd.read_csv(tmp_path / "out" / "rerankers.csv").set_index("model")
    ours, oml = rows.loc["stir"], rows.loc["oml"]
    assert ours.first_cmc_1 == oml.first_cmc_1 and ours.pairs == oml.pairs
    assert oml.decodes == 2 * oml.pairs and ours.decodes * 4 < oml.decodes  # one decode per image
    assert (rows[["cmc_1", "map_5"]] > 0).all(axis=None) and (rows[["pairs_per_s", "peak_mb"]] >= 0).all(axis=None)
    assert f"{ours.cmc_1:.4f}" in printed and "concat_siamese (OML)" in printed
    assert min(Image.open(tmp_path / "out" / "rerankers.png").size) > 300


def test_fewer_photos_are_spread_evenly_and_training_stays(tmp_path: Path):
    rows = [{"label": 0, "path": f"t{i}.png", "split": "train"} for i in range(5)]
    rows += [{"label": 1, "path": f"v{i}.png", "split": "validation", "is_query": i < 3} for i in range(9)]
    rows += [{"label": 2, "path": f"w{i}.png", "split": "validation", "is_query": True} for i in range(2)]
    pd.DataFrame(rows).to_csv(tmp_path / "df.csv", index=False)
    printed_by("fewer_photos", tmp_path, "df.csv", "fewer.csv", "--per-label", "3")
    fewer = pd.read_csv(tmp_path / "fewer.csv")
    assert fewer.path.tolist() == [f"t{i}.png" for i in range(5)] + ["v0.png", "v4.png", "v8.png", "w0.png", "w1.png"]
    validation = fewer[fewer.split == "validation"]
    assert validation[["is_query", "is_gallery"]].astype(bool).all(axis=None)
    assert fewer[fewer.split == "train"].is_gallery.isna().all()
