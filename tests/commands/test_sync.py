"""``oml-vit-ext sync``: what it does is in ``test_query.py``; here what it refuses."""

from __future__ import annotations

from pathlib import Path

from helpers.command_line import fails


def test_without_an_index_nothing_is_made(in_tmp_path: Path):
    assert "photo_index" in fails("sync", "--index", "photo_index")
    assert not Path("photo_index").joinpath("manifest.json").exists()
    assert "--index" in fails("sync", code=2)


def test_a_folder_beside_images_to_remove_is_refused(in_tmp_path: Path):
    said = fails("sync", "photos", "--index", "photo_index", "--remove", "cat.jpg")
    assert "Both the folder 'photos' and --remove 'cat.jpg' are given, expected one" in said
