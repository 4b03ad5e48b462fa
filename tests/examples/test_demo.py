"""The demo from its command line, small: what a newcomer sees and finds on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from helpers import ROOT

SMALL = ["sampler.args.n_labels=4", "extractor.args.timm_args.depth=2", "pretrained=null"]


def test_demo_prints_a_table_and_leaves_pictures(demo_slice: Path, tmp_path: Path):
    arguments = ["--data", str(demo_slice), "--output", "here", "--iterations", "2", *SMALL]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/demo.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "here/results.json").read_text())
    assert list(rows) == ["starting point", "IRT_L", "IRT_R"]
    for name, row in rows.items():
        assert 0 <= row["cmc_1"] <= row["cmc_10"] <= 1 and 1 <= row["dims_90"] <= 192
        shown = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert shown.removeprefix(name).split()[:3] == [f"{row[key]:.3f}" for key in ("cmc_1", "cmc_10", "map_5")]
    for picture in ("retrieval.png", "spectrum.png"):
        assert min(Image.open(tmp_path / "here" / picture).size) > 300
        assert str(tmp_path / "here" / picture) in done.stdout
    assert (tmp_path / "here/irt_r/checkpoints/best.ckpt").is_file()
    assert not list((tmp_path / "here").glob("*part*"))
