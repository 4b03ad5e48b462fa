"""The three pipelines of OML, through the example scripts, on a slice of the bundled pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from oml.inference import inference
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers.scripts import few_pictures, printed_by, run_script

# Two layers instead of six, eight steps.
SMALL = [
    "extractor.args.timm_args.depth=2",
    "hydra.run.dir=run",
    "pretrained=null",
]
TRAINING = [
    "iterations=8",
    "valid_iterations=4",
    "memory_size=40",
    "sampler.args.n_labels=4",
    "sampler.args.n_instances=2",
]


@pytest.fixture(scope="module")
def run_folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which IRT_R was trained with the data set given as a relative path."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "data").symlink_to(demo_slice)
    printed_by("train_extractor", folder, "--config-name", "irt/train_demo", "dataset_root=data", *SMALL, *TRAINING)
    return folder


def _checkpoint(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "best.ckpt"


def _extractor(weights: Path | None):
    return get_extractor_by_cfg(
        {
            "name": "irt",
            "args": {
                "weights": weights,
                "arch": "vit_tiny_r_s16_p8_224",
                "timm_args": {"img_size": 48, "patch_size": 2, "depth": 2},
            },
        }
    ).eval()


def test_training_counts_iterations_and_keeps_the_memory(run_folder: Path):
    content = torch.load(_checkpoint(run_folder), weights_only=False)
    assert content["global_step"] in (4, 8)  # the better of the two validations
    memory = {k: v for k, v in content["state_dict"].items() if k.startswith("criterion.")}
    assert any(isinstance(v, torch.Tensor) and v.shape[-1:] == (192,) for v in memory.values())


def test_training_moved_the_weights(run_folder: Path):
    torch.manual_seed(42)
    trained, fresh = _extractor(_checkpoint(run_folder)), _extractor(None)
    assert not torch.equal(trained.backbone.blocks[0].attn.qkv.weight, fresh.backbone.blocks[0].attn.qkv.weight)


def test_validation_prints_the_papers_metrics(run_folder: Path):
    printed = printed_by(
        "validate_extractor",
        run_folder,
        *("--config-name", "irt/validate_demo", "dataset_root=data", f"checkpoint={_checkpoint(run_folder)}", *SMALL),
    )
    for metric in ("OVERALL/cmc/1", "OVERALL/cmc/10", "OVERALL/map/5", "OVERALL/pcf/0.9"):
        assert metric in printed


def test_predictions_equal_what_the_checkpoint_gives_in_python(run_folder: Path, demo_slice: Path):
    pictures = few_pictures(demo_slice, run_folder / "few")
    printed_by(
        "predict_extractor",
        run_folder,
        *("--config-name", "irt/predict_demo", "data_dir=few", "hydra.run.dir=predictions", "bs=64"),
        *("checkpoint=run/checkpoints/best.ckpt", *SMALL[::2]),
    )
    predicted = json.loads((run_folder / "predictions" / "predictions.json").read_text())
    assert sorted(Path(path).name for path in predicted) == sorted(pictures)

    from oml.datasets.images import ImageBaseDataset

    paths = sorted(predicted)[:5]
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 48, "crop_size": 48}})
    dataset = ImageBaseDataset([Path(p) for p in paths], transform=transform)
    descriptors = inference(_extractor(_checkpoint(run_folder)), dataset, batch_size=5, verbose=False)
    torch.testing.assert_close(torch.tensor([predicted[p] for p in paths]), descriptors, atol=1e-5, rtol=1e-4)


def test_help_names_the_configs_and_variants(run_folder: Path):
    printed = printed_by("train_extractor", run_folder, "--help")
    assert "oml-vit-ext train irt/train_sop" in printed and "irt_l (contrastive" in printed


def test_a_wrong_pooling_stops_before_training(run_folder: Path):
    arguments = ["dataset_root=data", "extractor.args.pooling=mean", *SMALL, *TRAINING]
    done = run_script("train_extractor", run_folder, *arguments)
    assert done.returncode != 0 and "Unknown pooling 'mean'" in done.stderr
