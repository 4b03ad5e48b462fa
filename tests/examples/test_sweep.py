"""The sweep over margin and entropy weight, small: figures, heat map, and going on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from helpers.scripts import printed_by

SMALL = ["sampler.args.n_labels=4", "extractor.args.timm_args.depth=2", "pretrained=null"]


def _sweep(folder: Path, data: Path, weights: str) -> pd.DataFrame:
    arguments = ["--margins", "0.5", "--entropy-weights", weights, "--iterations", "2", "--output", "sweep"]
    printed_by("sweep_irt", folder, *arguments, f"dataset_root={data}", *SMALL)
    return pd.read_csv(folder / "sweep" / "sweep.csv")


def test_sweep_goes_on_where_it_stopped(demo_slice: Path, tmp_path: Path):
    first = _sweep(tmp_path, demo_slice, "0")
    both = _sweep(tmp_path, demo_slice, "0,5")
    pd.testing.assert_frame_equal(both.head(1), first)  # its seconds too: the finished run was not repeated
    assert both.entropy_weight.tolist() == [0, 5] and both.cmc_1.between(0, 1).all()
    assert both.cmc_10[0] != both.cmc_10[1] or both.dims_90[0] != both.dims_90[1] or both.map_5[0] != both.map_5[1]
    assert min(Image.open(tmp_path / "sweep" / "sweep.png").size) > 300
