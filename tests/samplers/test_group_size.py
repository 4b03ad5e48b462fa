"""Group-size sampling: one shape per batch, balanced classes, equal batches, the same on every process."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from oml.datasets.images import get_retrieval_images_datasets
from oml.ddp.patching import DDPSamplerWrapper
from oml.lightning.modules.extractor import ExtractorModuleDDP
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from PIL import ExifTags, Image
from torch.utils.data import DataLoader

from oml_vit_ext.extractors import HybridViTExtractor
from oml_vit_ext.losses import IRTLoss
from oml_vit_ext.samplers.group_size import GroupSizeSampler, default_sizes_cache
from oml_vit_ext.transforms.size_groups import group_of

SIZES = ((24, 16), (16, 16), (16, 24))
SMALL = {
    "arch": "vit_tiny_patch16_224",
    "n_layers": 1,
    "embed_dim": 8,
    "timm_args": {"depth": 1, "img_size": 16, "patch_size": 8},
}
SHAPES = ((33, 22), (20, 20), (40, 60))  # of the images, one per group


def _data_set(root: Path, shapes_by_label: list[list[int]], exif_of: dict[int, int] | None = None) -> Path:
    """A data set of one label per entry, whose images have the shapes of the given groups; and two to validate."""
    rows = []
    for label, shapes in enumerate(shapes_by_label):
        for i, shape in enumerate(shapes):
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = (exif_of or {}).get(len(rows), 1)
            colour = (40 * label % 256, 90 * i % 256, 7 * shape)
            Image.new("RGB", SHAPES[shape], colour).save(root / f"{label}_{i}.jpg", exif=exif)
            rows.append((1000 - label, f"{label}_{i}.jpg", "train", None, None))
    for i in range(2):
        Image.new("RGB", SHAPES[1]).save(root / f"v{i}.jpg")
        rows.insert(i * 3, (5000, f"v{i}.jpg", "validation", True, True))  # among the rows of training
    pd.DataFrame(rows, columns=["label", "path", "split", "is_query", "is_gallery"]).to_csv(
        root / "df.csv", index=False
    )
    return root


def _labels(root: Path) -> np.ndarray:
    return get_retrieval_images_datasets(root, None, None, verbose=False)[0].get_labels()


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    """12 labels of 6 images: three in each single group, three in all of them."""
    return _data_set(tmp_path, [[0] * 6] * 3 + [[1] * 6] * 3 + [[2] * 6] * 3 + [[0, 0, 1, 1, 2, 2]] * 3)


def _sampler(root: Path, **changes) -> GroupSizeSampler:
    args = {"batch_size": 8, "n_instances": 2, "sizes": SIZES, "verbose": False, "dataset_root": root} | changes
    return get_sampler_by_cfg({"name": "group_size", "args": args}, labels=_labels(root), label2category=None)


def _groups(root: Path) -> np.ndarray:
    df = pd.read_csv(root / "df.csv")
    sizes = [Image.open(root / path).size for path in df[df.split == "train"].path]
    return group_of(np.array([w for w, _ in sizes]), np.array([h for _, h in sizes]), SIZES)


@pytest.mark.parametrize("n_instances", [2, 4, None])
def test_batches_are_of_one_group_and_of_equal_length(root: Path, n_instances: int | None):
    sampler, groups = _sampler(root, n_instances=n_instances), _groups(root)
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert {len(batch) for batch in batches} == {sampler.batch_size} == {8}
        assert all(len(set(groups[batch])) == 1 for batch in batches)
        assert all(isinstance(row, int) for batch in batches for row in batch)


def test_a_batch_holds_n_instances_of_each_label_without_copies(root: Path):
    sampler, labels = _sampler(root), _labels(root)
    for batch in (batch for _ in range(3) for batch in sampler):
        assert sorted(Counter(labels[batch].tolist()).values()) == [2, 2, 2, 2]
        assert len(set(batch)) == 8


def test_over_the_epochs_all_labels_and_all_images_are_shown_alike(root: Path):
    sampler, labels = _sampler(root), _labels(root)
    shown = Counter(row for _ in range(300) for batch in sampler for row in batch)
    assert set(shown) == set(range(len(labels)))
    per_label = np.bincount(labels, weights=[shown[row] for row in range(len(labels))])
    assert per_label.max() < 1.35 * per_label.min()


def test_epochs_differ_and_seeds_repeat_them(root: Path):
    first, second = _sampler(root, seed=3), _sampler(root, seed=3)
    epochs = [list(first) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    np.random.seed(1)
    torch.manual_seed(1)  # neither global generator matters
    assert [list(second) for _ in range(3)] == epochs
    assert list(_sampler(root, seed=4)) != epochs[0]


@pytest.mark.parametrize("n_instances", [2, None])
def test_two_processes_share_the_batches_of_one(root: Path, n_instances: int | None, monkeypatch: pytest.MonkeyPatch):
    """OML's wrapper on two processes: together they see the batches of one process, epoch by epoch."""
    alone, epochs = _sampler(root, n_instances=n_instances), 3
    expected = [list(alone) for _ in range(epochs)]
    seen = []
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.is_available", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        np.random.seed(rank)
        wrapper = DDPSamplerWrapper(_sampler(root, n_instances=n_instances), shuffle_samples_between_gpus=False)
        seen.append([list(wrapper) for _ in range(epochs)])
    for epoch in range(epochs):
        assert len(seen[0][epoch]) == len(seen[1][epoch])
        together = [batch for pair in zip(seen[0][epoch], seen[1][epoch], strict=True) for batch in pair]
        assert together[: len(expected[epoch])] == expected[epoch]


def test_with_the_oml_data_set_and_the_transform_all_batches_collate(tmp_path: Path):
    """Images that EXIF turns included: the sampler and the transform see them alike."""
    turned = dict.fromkeys(range(0, 72, 5), 6)
    root = _data_set(tmp_path, [[0] * 6] * 4 + [[1] * 6] * 4 + [[2] * 6] * 4, exif_of=turned)
    transform = get_transforms_by_cfg({"name": "augs_dtop", "args": {"sizes": SIZES}})
    data_set, _ = get_retrieval_images_datasets(root, transform, None, verbose=False)
    sampler = _sampler(root)
    shapes = Counter()
    for _ in range(3):
        for batch in DataLoader(data_set, batch_sampler=sampler):
            shapes[tuple(batch["input_tensors"].shape)] += 1
    assert set(shapes) == {(8, 3, h, w) for w, h in SIZES}


def test_rows_without_a_box_or_a_size_are_looked_at(tmp_path: Path):
    root = _data_set(tmp_path, [[0, 0, 2, 2]])
    df = pd.read_csv(root / "df.csv")
    in_training = df.split == "train"
    for column, side in (("x_1", 0), ("y_1", 0), ("x_2", 20), ("y_2", 10)):
        df[column] = [side if path in ("0_0.jpg", "0_3.jpg") else np.nan for path in df.path]
    df.assign(width=np.where(in_training, np.nan, 20), height=20).to_csv(root / "df.csv", index=False)
    sampler = GroupSizeSampler([0] * 4, root, 2, None, sizes=SIZES, verbose=False)
    assert sampler.groups.tolist() == [0, 0, 2, 0]


def test_bounding_boxes_decide_the_group(root: Path):
    df = pd.read_csv(root / "df.csv")
    df = df.assign(x_1=0, y_1=0, x_2=10, y_2=15)
    df.to_csv(root / "df.csv", index=False)
    transform = get_transforms_by_cfg({"name": "augs_dtop", "args": {"sizes": SIZES}})
    data_set, _ = get_retrieval_images_datasets(root, transform, None, verbose=False)
    sampler = _sampler(root)
    assert set(sampler.groups.tolist()) == {2}
    assert {tuple(b["input_tensors"].shape) for b in DataLoader(data_set, batch_sampler=sampler)} == {(8, 3, 24, 16)}


def test_sizes_in_the_dataframe_are_used_and_no_image_is_read(root: Path):
    expected = list(_sampler(root))
    df = pd.read_csv(root / "df.csv")
    sizes = [Image.open(root / path).size for path in df.path]
    df.assign(width=[w for w, _ in sizes], height=[h for _, h in sizes]).to_csv(root / "df.csv", index=False)
    labels = _labels(root)
    for path in root.glob("*.jpg"):
        path.unlink()
    sampler = GroupSizeSampler(labels, root, 8, 2, sizes=SIZES, verbose=False)
    assert list(sampler) == expected


def test_photos_that_exif_turns_are_in_the_group_of_their_upright_shape(tmp_path: Path):
    """With the sizes that our converter writes, too."""
    root = _data_set(tmp_path, [[0] * 4] * 4, exif_of=dict.fromkeys(range(8), 6))
    expected = [2] * 8 + [0] * 8
    assert _sampler(root).groups.tolist() == expected
    df = pd.read_csv(root / "df.csv")
    turned = (df.split == "train").cumsum().le(8) & (df.split == "train")
    df.assign(width=33, height=22, turned=turned).to_csv(root / "df.csv", index=False)
    (root / "df.image_sizes.csv").unlink()
    assert _sampler(root).groups.tolist() == expected
    assert not (root / "df.image_sizes.csv").exists(), "no image is read"


def test_sizes_are_kept_beside_the_dataframe_or_where_asked(root: Path, tmp_path: Path):
    _sampler(root)
    assert default_sizes_cache(root / "df.csv") == root / "df.image_sizes.csv"
    assert len(pd.read_csv(root / "df.image_sizes.csv")) == 72
    _sampler(root, sizes_cache=tmp_path / "elsewhere.csv")
    assert (tmp_path / "elsewhere.csv").is_file()


def test_a_small_group_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = _data_set(tmp_path, [[0] * 6] * 4 + [[2] * 3])
    with caplog.at_level(logging.WARNING):
        sampler = _sampler(root)
    assert "16x24 (3 images); labels without other images: 1" in caplog.text and "`sizes`" in caplog.text
    shown = {row for _ in range(40) for batch in sampler for row in batch}
    assert shown == set(range(24))
    joined = _sampler(root, sizes=SIZES[:1])
    assert {row for _ in range(40) for batch in joined for row in batch} > set(range(24)), "the advice helps"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size is 1, expected a whole number of at least 2"),
        ({"n_instances": 3}, "n_instances is 3, expected a divisor of batch_size=8"),
        ({"n_instances": 8}, "n_instances is 8, expected a divisor"),
        ({"n_instances": 0}, "n_instances is 0"),
        ({"batch_size": 40}, "ask for 20 labels in a batch, but the training set has 12"),
        ({"batch_size": 300, "n_instances": None}, r"groups of 24x16 \(24 images\).*all smaller than half"),
        ({"sizes": [[16, 16], [8, 8]]}, "have the same shape"),
    ],
)
def test_wrong_arguments_are_named(root: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        _sampler(root, **changes)


def test_a_dataframe_of_another_data_set_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory):
    labels = _labels(root)
    for wrong in (labels[:-1], np.roll(labels, 1)):
        with pytest.raises(ValueError, match="has 72 training rows of 12 labels, but the sampler was given"):
            GroupSizeSampler(wrong, root, 8, 2, sizes=SIZES, verbose=False)


def test_a_forgotten_argument_stops_although_the_oml_drops_wrong_ones(root: Path):
    with pytest.raises(TypeError, match="n_instances"):
        args = {"dataset_root": root, "batch_size": 8, "n_instance": 2}
        get_sampler_by_cfg({"name": "group_size", "args": args}, labels=_labels(root))


def test_a_resumed_training_goes_on_with_the_batches_of_its_epoch(root: Path, tmp_path: Path):
    def train(epochs: int, checkpoint: Path | None = None) -> list[list[int]]:
        torch.manual_seed(0)
        transform = get_transforms_by_cfg({"name": "augs_dtop", "args": {"sizes": SIZES}})
        data = get_retrieval_images_datasets(root, transform, transform, verbose=False)[0]
        loader = DataLoader(data, batch_sampler=_sampler(root))
        extractor = HybridViTExtractor(None, **SMALL)
        module = Recording(
            extractor=extractor,
            criterion=IRTLoss(),
            optimizer=torch.optim.SGD(extractor.parameters(), lr=1e-3),
            loaders_train=loader,
            loaders_val=loader,
        )
        trainer = pl.Trainer(
            max_epochs=epochs,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module.seen

    class Recording(ExtractorModuleDDP):
        def training_step(self, batch, batch_idx):
            self.seen = [*getattr(self, "seen", []), batch["idx"].tolist()]
            return super().training_step(batch, batch_idx)

    first, both = train(1), train(2)
    assert len(both) == 2 * len(first) and both[: len(first)] == first and both[len(first) :] != first
    assert train(2, tmp_path / "1.ckpt") == both[len(first) :]
