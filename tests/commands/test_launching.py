"""From what was typed to a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import typer

from oml_vit_ext.commands.launching import as_typed, chosen, launch


def test_nothing_is_chosen_for_the_data_set_of_the_config():
    assert chosen("irt/train_photos", []) == [] and chosen("irt/train_sop", ["dataset_root=x"]) == []


def test_what_is_chosen_is_told_with_its_reason(photos: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture):
    overrides = chosen("irt/train_photos", [f"dataset_root={photos}", "iterations=7"])
    assert "sampler.args.n_labels=6" in overrides and "memory_size=30" in overrides
    assert not [o for o in overrides if o.startswith("iterations=")], "it was given"
    printed = capsys.readouterr().out
    assert "Chosen from 30 training photos of 6 labels" in printed and "labels in a batch: of 6" in printed


def test_no_folder_is_left_by_a_run_with_mistakes(tiny: list[str], in_tmp_path: Path, capsys: pytest.CaptureFixture):
    before = sorted(in_tmp_path.iterdir())
    with pytest.raises(typer.Exit) as stop:
        launch("irt/train_photos", [*tiny, "optimizer.args.lr=abc"], lambda cfg: None, to=Path("run"))
    assert stop.value.exit_code == 1 and "optimizer.args.lr is 'abc'" in capsys.readouterr().out
    assert sorted(in_tmp_path.iterdir()) == before


def test_paths_are_shown_as_seen_from_here(in_tmp_path: Path):
    assert as_typed(in_tmp_path / "runs" / "a") == "runs/a"
