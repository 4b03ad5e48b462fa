"""The demo from its command line, small: what a newcomer sees and finds on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from helpers import ROOT
from helpers.scripts import printed_by

PHOTOS = ROOT / "examples" / "photos"
SMALL = ["pretrained=null", "+timm_args.depth=2", "join_layer=1", "sampler.args.n_labels=4", "num_workers=0"]
ROWS = ["IRT_O", "IRT_L", "IRT_R", "STIR alone", "STIR, fused"]


@pytest.fixture()
def few_photos(tmp_path: Path) -> Path:
    """Six photos each of six products of three kinds to train, and of four to validate."""
    df = pd.read_csv(PHOTOS / "df.csv")
    products = df.drop_duplicates("label")
    kinds = products[products.split == "train"].groupby("category").filter(lambda kind: len(kind) > 1)
    keep = [*kinds.groupby("category").head(2).label[:6], *products[products.split == "validation"].label[:4]]
    (tmp_path / "photos").mkdir()
    df[df.label.isin(keep)].groupby("label").head(6).to_csv(tmp_path / "photos" / "df.csv", index=False)
    (tmp_path / "photos" / "images").symlink_to(PHOTOS / "images")
    return tmp_path / "photos"


def test_demo_prints_a_table_and_leaves_a_page(few_photos: Path, tmp_path: Path):
    printed = printed_by("demo", tmp_path, "--data", "photos", "--output", "here", "--iterations", "1", *SMALL)
    rows = json.loads((tmp_path / "here/results.json").read_text())
    assert [name.split(" + ")[-1] for name in rows] == ROWS
    best = "IRT_L"  # by docs/study.md, not by these figures
    for name, row in rows.items():
        assert 0 <= row["cmc_1"] <= row["cmc_10"] <= 1 and 1 <= row["dims_90"] <= 24
        shown = next(line for line in printed.splitlines() if re.match(re.escape(name) + " {2}", line))
        assert shown.removeprefix(name).split()[:3] == [f"{row[key]:.3f}" for key in ("cmc_1", "cmc_10", "map_5")]
    reranked = rows[f"{best} + STIR, fused"]
    assert reranked["cmc_10"] == rows[best]["cmc_10"], "only the first five change places"

    page = (tmp_path / "here/demo.html").read_text()
    assert "24 photos of 4 products" in page
    for name, row in rows.items():
        assert f'<th scope="row">{name}</th>' in page and f"<td>{row['map_5']:.3f}</td>" in page
    data = json.loads(re.search(r'<script type="application/json" id="data">(.+?)</script>', page)[1])
    assert data["stages"] == list(rows) and data["stages"][data["compared"]] == best
    for stage, row in enumerate(rows.values()):
        first_right = [query["stages"][stage]["first_right"] == 1 for query in data["queries"]]
        assert len(first_right) == 24 and sum(first_right) == round(24 * row["cmc_1"])
    assert all(image["uri"].startswith("data:image/webp") for image in data["images"].values())
    assert "http" not in page.replace("http-equiv", ""), "all of it is inside the page"
    assert str(tmp_path / "here" / "demo.html") in printed
    for folder in ("irt_l", "irt_r", "stir"):
        assert (tmp_path / "here" / folder / "checkpoints" / "best.ckpt").is_file()
    assert not list((tmp_path / "here").glob("*part*"))


def test_fusion_of_the_demo_is_fitted_on_each_kind_once(few_photos: Path, tmp_path: Path):
    save_to = tmp_path / "fitted.json"
    arguments = ["--data", "photos", "--output", "here", "--save-to", str(save_to), "--iterations", "1"]
    printed = printed_by("fit_demo_fusion", tmp_path, *arguments, *SMALL)
    content = json.loads(save_to.read_text())
    df = pd.read_csv(few_photos / "df.csv").query("split == 'train'")
    parts = [pd.read_csv(tmp_path / f"here/part_{part}/held_out.csv") for part in (1, 2, 3)]
    held_out = [set(part.category[part.split == "validation"]) for part in parts]
    assert sorted(kind for kinds in held_out for kind in kinds) == sorted(df.category.unique()), "each kind once"
    assert content["fitted_on"]["queries"] == len(df) and content["fitted_on"]["top_n"] == 5
    assert f"first_stage_weight {content['first_stage_weight']:g}, " in printed
    for part in (1, 2, 3):
        for folder in ("irt_l", "stir"):
            assert (tmp_path / f"here/part_{part}/{folder}/checkpoints/best.ckpt").is_file()
    assert not list(few_photos.glob("held_out*")), "nothing is left beside the data"
