"""The picture of a search."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from oml_vit_ext.pictures.hits import draw_hits
from oml_vit_ext.retrieval import Hit


def test_one_row_for_each_query_and_a_hit_that_is_gone_does_not_stop_it(tmp_path: Path):
    for name in ("query", "hit"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / f"{name}.png")
    hits = [Hit("hit.png", 0.1, "", ""), Hit("gone.png", 0.2, "", "")]
    draw_hits([tmp_path / "query.png"], [hits], tmp_path, tmp_path / "one.png")
    draw_hits([tmp_path / "query.png"] * 2, [hits, hits[:1]], tmp_path, tmp_path / "two.png")
    one, two = (Image.open(tmp_path / f"{name}.png").size for name in ("one", "two"))
    assert two[0] == one[0] and two[1] > 1.5 * one[1]
