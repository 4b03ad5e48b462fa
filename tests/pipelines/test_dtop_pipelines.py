"""DToP through the example scripts on a slice of the bundled pictures: train, validate, fit a whitening, predict."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from oml.datasets.images import get_retrieval_images_datasets

from helpers.scripts import few_pictures, printed_by, run_script
from oml_vit_ext.extractors.pca import load_pca
from oml_vit_ext.samplers import GroupSizeSampler

# Two layers instead of six, four steps.
SMALL = (
    "dataset_root=data",
    "hybrid.timm_args.depth=2",
    "multi_layer=2",
    "embed_dim=16",
    "pca_dim=8",
    "images.group_sizes=[[48,32],[32,48]]",
    "hydra.run.dir=run",
)
TRAINING = (
    "iterations=4",
    "num_classes=12",
    "sampler.args.batch_size=8",
    "sampler.args.n_instances=2",
)


@pytest.fixture(scope="module")
def run_folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole model was trained, in batches of two shapes, the data set as a relative path."""
    folder = tmp_path_factory.mktemp("dtop")
    (folder / "data").symlink_to(demo_slice)
    arcface = "dtop/criterion@criterion=arcface"
    printed_by("train_extractor", folder, "--config-name", "dtop/train_demo", *SMALL, *TRAINING, arcface)
    return folder


def test_two_processes_share_the_batches_of_one_shape(demo_slice: Path, tmp_path: Path):
    """What a cross-batch memory holds after three steps of two processes are six batches of the sampler."""
    (tmp_path / "data").symlink_to(demo_slice)
    memory = ("dtop/criterion@criterion=irt", "+criterion.args.memory_size=1000")
    steps = ("iterations=3", "devices=2", "seed=3")
    printed_by("train_extractor", tmp_path, "--config-name", "dtop/train_demo", *SMALL, *TRAINING, *memory, *steps)
    state = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=False)["state_dict"]
    seen = state["criterion.memory.labels"].view(6, 8).sort(dim=1).values.tolist()

    dataset = get_retrieval_images_datasets(demo_slice, None, None, verbose=False)[0]
    alone = GroupSizeSampler(
        dataset.get_labels(), demo_slice, 8, 2, sizes=[[48, 32], [32, 48]], seed=3, sizes_cache=tmp_path / "sizes.csv"
    )
    labels = torch.as_tensor(dataset.get_labels())
    batches = [labels[batch].sort().values.tolist() for _ in range(2) for batch in alone]
    assert all(batch in batches[:6] for batch in seen)  # of the first two epochs, of three batches each
    assert sum(batch != other for batch, other in itertools.pairwise(seen)) >= 4, "only an odd one out comes twice"


def test_training_learns_class_centres_and_keeps_image_sizes(run_folder: Path):
    content = torch.load(run_folder / "run/checkpoints/best.ckpt", weights_only=False)
    assert content["global_step"] == 4
    assert content["state_dict"]["criterion.weight"].shape == (12, 16)
    assert len(pd.read_csv(run_folder / "run/image_sizes.csv")) > 40


def test_whitening_is_fitted_then_used_to_validate_and_to_predict(run_folder: Path):
    model = ("dtop/variant=full_whitened", "checkpoint=run/checkpoints/best.ckpt", "pca=new/pca.safetensors", *SMALL)
    printed = printed_by("fit_pca", run_folder, "--config-name", "dtop/validate_demo", *model, "pca_images=40")
    assert "Embeddings of 40 training images" in printed and "8 of 16 dimensions carry" in printed
    assert load_pca(run_folder / "new/pca.safetensors").components.shape == (8, 16)

    printed = printed_by("validate_extractor", run_folder, "--config-name", "dtop/validate_demo", *model)
    assert "OVERALL/cmc/1" in printed

    pictures = few_pictures(run_folder / "data", run_folder / "few")
    predict = ("--config-name", "dtop/predict_demo", "data_dir=few", "bs=64")
    printed_by("predict_extractor", run_folder, *predict, *model)
    descriptors = torch.tensor(list(json.loads((run_folder / "run/predictions.json").read_text()).values()))
    assert descriptors.shape == (len(pictures), 8)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(len(descriptors)))


def test_fitting_needs_a_config_with_a_pca(run_folder: Path):
    done = run_script("fit_pca", run_folder, "--config-name", "dtop/validate_demo", *SMALL)
    assert done.returncode != 0 and "is 'hybrid_vit', expected 'extractor_with_pca'" in done.stderr
