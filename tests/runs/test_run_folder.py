"""The config of a run as it was meant, wherever it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.runs import written_down
from oml_vit_ext.runs import is_run, read_run


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    """A run that was started in the folder ``here``, with names relative to it."""
    (tmp_path / "here/photos").mkdir(parents=True)
    (tmp_path / "here/fusion.json").write_text("{}")
    cfg = {
        "dataset_root": "photos",
        "extractor": {"name": "irt", "args": {"weights": "fusion.json", "arch": "${arch}"}},
        "arch": "photos",
        "checkpoint": "???",
        "files": ["../here/photos", "gone/best.ckpt", "vit.tag"],
    }
    written_down(cfg, tmp_path / "run", tmp_path / "here")
    return tmp_path / "run"


def test_names_count_from_where_the_run_was_started(run: Path):
    here = run.parent / "here"
    config = read_run(run).config
    assert config["extractor"]["args"]["weights"] == str(here / "fusion.json")
    assert Path(config["files"][0]).resolve() == here / "photos"
    assert config["files"][1:] == ["gone/best.ckpt", "vit.tag"], "nothing is there: perhaps no path at all"
    assert config["extractor"]["args"]["arch"] == "photos", "a word, not the folder that is called so"
    assert config["checkpoint"] == "???"


def test_the_data_set_is_found_even_if_its_name_is_one_word(run: Path):
    assert read_run(run).config["dataset_root"] == str(run.parent / "here/photos")


def test_a_training_has_a_checkpoint_and_a_validation_none(run: Path):
    assert read_run(run).checkpoint is None
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best.ckpt").touch()
    assert read_run(run).checkpoint == run / "checkpoints/best.ckpt"
    (run / "checkpoints/best-v1.ckpt").touch()
    (run / "checkpoints/best_of_another_model.ckpt").touch()
    os.utime(run / "checkpoints/best-v1.ckpt", (1, 1))  # as in a copy
    assert read_run(run).checkpoint == run / "checkpoints/best-v1.ckpt", "the later one"
    with (run / ".hydra/config.yaml").open("a") as config:
        config.write("resume: null\n")
    assert read_run(run).checkpoint == run / "checkpoints/best.ckpt", "such a run gives a number to the earlier one"
    assert read_run(run, run.parent / "here/fusion.json").checkpoint == run.parent / "here/fusion.json"
    with pytest.raises(FileNotFoundError, match=r"checkpoint is 'no.ckpt', expected a file"):
        read_run(run, "no.ckpt")


def test_values_given_now_count_and_their_paths_from_here(run: Path, in_tmp_path: Path):
    (in_tmp_path / "other").mkdir()
    config = read_run(run, overrides=["dataset_root=other", "arch=new"]).config
    assert config["dataset_root"] == str(in_tmp_path / "other") and config["extractor"]["args"]["arch"] == "new"
    assert is_run(run) and not is_run(in_tmp_path)
    for key, near in (("datset_root", "dataset_root"), ("extractor.args.wights", "extractor.args.weights")):
        with pytest.raises(ValueError, match=rf"Unknown key of the run's config: '{key}': did you mean '{near}'"):
            read_run(run, overrides=[f"{key}=other"])
    (in_tmp_path / "df.csv").touch()
    assert read_run(run, overrides=["+dataframe_name=df.csv"]).config["dataframe_name"] == "df.csv", "below the root"
    assert read_run(run, overrides=["+extractor.args.new=1"]).config["extractor"]["args"]["new"] == 1


def test_the_users_folder_is_none_of_where_the_run_was_started(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(run.parent / "me"))
    cfg = {"dataset_root": "~/photos", "extractor": {"args": {"weights": "~/start.pth"}}}
    written_down(cfg, run.parent / "second", run.parent / "here")
    config = read_run(run.parent / "second", overrides=["+fusion=~/fusion.json"]).config
    me = str(run.parent / "me")
    assert config["dataset_root"] == f"{me}/photos" and config["extractor"]["args"]["weights"] == f"{me}/start.pth"
    assert config["fusion"] == f"{me}/fusion.json"
    assert read_run(run.parent / "second", overrides=["dataset_root=~/more"]).config["dataset_root"] == f"{me}/more"


def test_a_training_that_has_not_validated_yet(tmp_path: Path):
    written_down({"optimizer": {}, "dataset_root": "x"}, tmp_path / "run", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"has no checkpoints/best.ckpt: expected a training that has validated"
    ):
        read_run(tmp_path / "run")


def test_another_folder_is_told_from_a_run(run: Path):
    with pytest.raises(FileNotFoundError, match=r"has no .hydra/config.yaml.*did you mean its latest run, '.*/run'\?"):
        read_run(run.parent)
    with pytest.raises(FileNotFoundError, match="does not exist, expected the folder of a run"):
        read_run(run / "nothing")
