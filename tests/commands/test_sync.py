"""``oml-vit-ext sync``: what it does is in ``test_query.py``; here what it refuses."""

from __future__ import annotations

from pathlib import Path

from helpers.command_line import fails


def test_without_an_index_nothing_is_made(in_tmp_path: Path):
    assert "photo_index" in fails("sync", "--index", "photo_index")
    assert not Path("photo_index").joinpath("manifest.json").exists()
    assert "--index" in fails("sync", code=2)
