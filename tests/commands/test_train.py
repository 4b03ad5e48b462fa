"""``oml-vit-ext train``, then the model in use: the way from photos to hits, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helpers.command_line import QUIET, fails, succeeds


def test_a_training_shows_what_it_brought_and_its_model_is_found(tiny: list[str], in_tmp_path: Path):
    printed = succeeds("train", "irt/train_photos", *tiny, "--to", "run", *QUIET)
    rows = [line.split() for line in printed.splitlines()]
    assert ["CMC@1", "CMC@5", "MAP@5"] in rows, "ten photos: nine to be found, so no CMC@10"
    assert any(row[:2] == ["before", "training"] for row in rows) and any(row[:1] == ["after"] for row in rows)
    assert "Written: run/checkpoints/best.ckpt" in printed and "--model run --to photo_index" in printed
    assert "tensor(" not in printed
    written = yaml.safe_load(Path("run/.hydra/config.yaml").read_text())
    assert written["memory_size"] == 30 and written["sampler"]["args"]["n_labels"] == 6, "what was chosen is kept"
    assert "10 photos" in succeeds("validate", "run")
    again = succeeds("train", "irt/train_photos", *tiny, "iterations=4", "resume=last", "--to", "run", *QUIET)
    assert "before training" not in again and "after training" in again
    assert "40 added" in succeeds("index", "photos", "--to", "kept", "--model", "run", "--device", "cpu")
    shown = succeeds("query", "photos/product 1/IMG 0.JPG", "--index", "kept", "-k", "3", "--device", "cpu")
    assert "product 1/IMG 0.JPG" in shown and Path("search.png").is_file()


@pytest.mark.parametrize("wrong", ["optimizer.args.lr=abc", "criterion.name=irtt"])
def test_mistakes_stop_it_before_a_folder_is_made(wrong: str, tiny: list[str], in_tmp_path: Path):
    before = sorted(in_tmp_path.iterdir())
    fails("train", "irt/train_photos", *tiny, wrong, *QUIET)
    assert sorted(in_tmp_path.iterdir()) == before
