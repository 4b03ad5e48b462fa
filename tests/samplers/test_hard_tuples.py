"""Tuples with mined negatives: against plain loops, and in OML's pipeline with one and two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import ROOT
from helpers.plain_mining import embeddings, plainly
from oml_vit_ext.samplers import HardTuplesSampler

LABELS = np.repeat(np.arange(12), 6)


def sampler(**changes) -> HardTuplesSampler:
    return HardTuplesSampler(LABELS, **{"n_tuples": 2, "n_negatives": 3, "n_pairs": 11, "n_candidates": 50, **changes})


def test_batches_are_tuples():
    tuples, everything = sampler(), embeddings(72)
    tuples.mine_with(lambda rows: torch.from_numpy(everything[rows]))
    batches = list(tuples)
    assert len(batches) == len(tuples) == 5 and tuples.batch_size == 10
    draw = tuples.draw(0)
    for rows in np.array(batches).reshape(-1, 5):
        anchor, positive, *negatives = rows
        assert anchor != positive and LABELS[anchor] == LABELS[positive]
        expected = plainly(everything[anchor], LABELS[anchor], everything[draw.candidates], LABELS[draw.candidates], 3)
        assert negatives == draw.candidates[expected].tolist()
    assert tuples.last_similarity > 0


def test_each_epoch_is_mined_once_with_the_model_of_then():
    calls = []

    def embed(rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        return embeddings(72, seed=len(calls))[rows]

    epoch = 0
    tuples = sampler()
    tuples.mine_with(embed, epoch=lambda: epoch)
    reports: list[dict[str, float]] = []
    tuples.report_to(reports.append)
    iter(tuples)  # nothing is mined before a batch is asked for
    assert calls == []
    first = list(tuples)
    assert list(tuples) == first and len(calls) == 1
    epoch = 1
    assert list(tuples) != first and len(calls) == len(reports) == 2
    assert reports[1] == {"mined_similarity": tuples.last_similarity}


def test_draws_depend_on_seed_and_epoch_alone():
    def anchors(seed: int, epoch: int) -> list[int]:
        return sampler(seed=seed).draw(epoch).anchors.tolist()

    assert anchors(0, 3) == anchors(0, 3)
    assert anchors(0, 3) != anchors(0, 4) and anchors(0, 3) != anchors(1, 3)


def test_a_resumed_run_goes_on():
    tuples, resumed = sampler(), sampler()
    for one in (tuples, resumed):
        one.mine_with(lambda rows: embeddings(72)[rows])
    _, second = list(tuples), list(tuples)
    resumed.follow_epochs(lambda: 1)
    assert list(resumed) == second


def test_pairs_of_a_file(tmp_path: Path):
    df = pd.DataFrame({"label": LABELS, "path": [f"{i}.jpg" for i in range(72)], "split": "train"})
    more = pd.DataFrame({"label": [90], "path": ["v.jpg"], "split": ["validation"]})
    pd.concat([more, df]).to_csv(tmp_path / "df.csv", index=False)
    rows = [("0.jpg", "3.jpg", "train"), ("7.jpg", "8.jpg", "train"), ("v.jpg", "v.jpg", "validation")]
    pd.DataFrame(rows, columns=["anchor", "positive", "split"]).to_csv(tmp_path / "pairs.csv", index=False)
    tuples = sampler(pairs=tmp_path / "pairs.csv", dataset_root=tmp_path)
    draw = tuples.draw(0)
    assert {*zip(draw.anchors.tolist(), draw.positives.tolist(), strict=True)} == {(0, 3), (7, 8)}
    assert len(tuples) == 1

    (tmp_path / "pairs.csv").write_text("anchor,positive\n0.jpg,7.jpg\n0.jpg,1.jpg\n")
    with pytest.raises(ValueError, match="1 pair has two different labels"):
        sampler(pairs=tmp_path / "pairs.csv", dataset_root=tmp_path)
    (tmp_path / "pairs.csv").write_text("anchor,positive\n0.jpg,lost.jpg\n")
    with pytest.raises(ValueError, match=r"lists 0.jpg for training, which is not|lists .* training rows"):
        sampler(pairs=tmp_path / "pairs.csv", dataset_root=tmp_path)
    with pytest.raises(ValueError, match="without dataset_root"):
        sampler(pairs=tmp_path / "pairs.csv")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n_tuples is 0"):
        sampler(n_tuples=0)
    with pytest.raises(ValueError, match="n_negatives is 12, but the training set has 12 labels"):
        sampler(n_negatives=12)
    with pytest.raises(ValueError, match="has 0 pairs"):
        HardTuplesSampler(np.arange(20))
    with pytest.raises(RuntimeError, match="no model to mine with"):
        next(iter(sampler()))
    tuples = sampler()
    tuples.mine_with(lambda rows: np.full((len(rows), 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="NaN or infinity"):
        next(iter(tuples))


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SfM-120k in small: 8 models with 4 training images each, 2 with 3 validation images, and pairs."""
    root = tmp_path_factory.mktemp("landmarks")
    rng = np.random.default_rng(0)
    rows = []
    for label in range(10):
        colour = rng.integers(0, 255, 3)
        for i in range(4 if label < 8 else 3):
            noisy = np.clip(colour + rng.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f"{label}_{i}.png")
            val = None if label < 8 else True
            rows.append((label, f"{label}_{i}.png", "train" if label < 8 else "validation", val, val))
    pd.DataFrame(rows, columns=["label", "path", "split", "is_query", "is_gallery"]).to_csv(
        root / "df.csv", index=False
    )
    pairs = [(f"{label}_0.png", f"{label}_{i}.png", "train") for label in range(8) for i in (1, 2)]
    pd.DataFrame(pairs, columns=["anchor", "positive", "split"]).to_csv(root / "df.pairs.csv", index=False)
    return root


def arguments(root: object) -> list[str]:
    return [
        *(f"dataset_root={root}", "pretrained=null", "arch=vit_tiny_patch16_224", "+timm_args.depth=1", "side=32"),
        *("max_epochs=2", "valid_period=2", "optimizer.args.lr=1e-3", "accelerator=cpu"),
        *("sampler.args.n_tuples=2", "sampler.args.n_negatives=3", "sampler.args.n_pairs=8"),
        "sampler.args.n_candidates=20",
    ]


def test_the_oml_pipeline_mines_each_epoch(
    landmarks: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from hydra import compose, initialize_config_module
    from oml.lightning.pipelines.train import extractor_training_pipeline

    seen: list[list[list[int]]] = []
    batches_of = HardTuplesSampler._batches

    def watched(self: HardTuplesSampler, *args) -> list[list[int]]:
        seen.append(batches_of(self, *args))
        return seen[-1]

    monkeypatch.setattr(HardTuplesSampler, "_batches", watched)
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose("revisited/train_sfm120k", [*arguments(landmarks), "num_workers=0"])
    with caplog.at_level("INFO", logger="oml_vit_ext"):
        extractor_training_pipeline(cfg)
    assert len(seen) == 2 and seen[0] != seen[1], "mined once an epoch"
    assert "hard_tuples: epoch 1, mean similarity" in caplog.text
    assert torch.load("checkpoints/best.ckpt", weights_only=False)["global_step"] == 2 * 4


def test_two_processes_mine_together(landmarks: Path, tmp_path: Path):
    (tmp_path / "data").symlink_to(landmarks)
    command = [sys.executable, str(ROOT / "examples/train_extractor.py"), "--config-name", "revisited/train_sfm120k"]
    done = subprocess.run(
        [*command, *arguments("data"), "hydra.run.dir=run", "devices=2", "num_workers=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (tmp_path / "run/train_extractor.log").read_text().count("mean similarity of anchors and negatives") == 2
    content = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=False)  # our own file
    assert content["global_step"] == 2 * 4 / 2
