"""Scores on disk: found by their pair, whole at any time, and never those of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oml.transforms.images.torchvision import get_normalisation_resize_torch

from helpers.photos import SIZE, small_dataset, small_frame, small_model
from oml_vit_ext.reranking import score_file
from oml_vit_ext.reranking.score_file import ScoreFile, SharedScoreFile, fingerprint


def _pairs(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _scores(*scores: float) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def test_scores_are_found_by_their_pair_in_any_order(tmp_path: Path):
    rng = np.random.default_rng(0)
    numbers = rng.permutation(40 * 40)[:300]
    pairs, scores = np.stack([numbers // 40, numbers % 40], axis=1), rng.random(300).astype(np.float32)
    file = ScoreFile(tmp_path / "x.npz", "me")
    for part in range(0, 300, 70):
        file.add(pairs[part : part + 70], scores[part : part + 70])
    file.write()
    wanted = rng.integers(60, size=(500, 2))
    by_pair = {tuple(pair): score for pair, score in zip(pairs.tolist(), scores, strict=True)}
    expected = [by_pair.get(tuple(pair), np.nan) for pair in wanted.tolist()]
    for opened in (file, ScoreFile(tmp_path / "x.npz", "me")):
        np.testing.assert_array_equal(opened.known(wanted), _scores(*expected))
    assert 0 < np.isfinite(expected).sum() < 500


def test_an_empty_file_knows_nothing(tmp_path: Path):
    file = ScoreFile(tmp_path / "x.npz", "me")
    assert np.isnan(file.known(_pairs((0, 1), (1, 0)))).all() and len(file.known(_pairs())) == 0
    file.write()
    assert not list(tmp_path.iterdir()), "nothing new, nothing written"


def test_scores_are_written_every_half_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(score_file.time, "monotonic", lambda: now)
    path = tmp_path / "new" / "x.npz"
    file = ScoreFile(path, "me")
    file.add(_pairs((0, 1)), _scores(0.5))
    assert not path.exists()
    now += 31
    file.add(_pairs((2, 1)), _scores(0.25))
    assert ScoreFile(path, "me").known(_pairs((2, 1), (0, 1))).tolist() == [0.25, 0.5]
    file.add(_pairs((3, 1)), _scores(0.75))
    assert np.isnan(ScoreFile(path, "me").known(_pairs((3, 1))))


def test_other_files_are_refused_and_left_alone(tmp_path: Path):
    file = ScoreFile(tmp_path / "x.npz", "me")
    file.add(_pairs((0, 1)), _scores(0.5))
    file.write()
    with pytest.raises(ValueError, match=r"x\.npz' holds scores of another model, other images, transforms or prec"):
        ScoreFile(tmp_path / "x.npz", "somebody else")
    np.savez(tmp_path / "other.npz", pairs=np.zeros(2))
    (tmp_path / "text.npz").write_text("no scores")
    for name in ("other", "text"):
        before = (tmp_path / f"{name}.npz").read_bytes()
        with pytest.raises(RuntimeError, match=rf"{name}\.npz' is not a file of scores .*: delete it or name another"):
            ScoreFile(tmp_path / f"{name}.npz", "me")
        assert (tmp_path / f"{name}.npz").read_bytes() == before


def test_parts_of_other_processes_are_used_and_joined(tmp_path: Path):
    model, dataset = small_model(), small_dataset(tmp_path)
    path, belongs_to = tmp_path / "x.npz", fingerprint(model, dataset, half=False)
    for name, pair, score in (("x.npz", (0, 1), 0.1), ("x.npz.rank1", (0, 2), 0.2), ("x.npz.rank7", (0, 3), 0.3)):
        part = ScoreFile(tmp_path / name, belongs_to)
        part.add(_pairs(pair), _scores(score))
        part.write()
    shared = SharedScoreFile(path, model, dataset, half=False)
    pairs = _pairs((0, 3), (0, 2), (0, 1), (5, 5))
    np.testing.assert_array_equal(shared.known(pairs), _scores(0.3, 0.2, 0.1, np.nan))
    shared.close(_pairs((5, 5)), _scores(0.5))
    np.testing.assert_array_equal(ScoreFile(path, belongs_to).known(pairs), _scores(0.3, 0.2, 0.1, 0.5))
    assert list(tmp_path.glob("x.npz*")) == [path]


def test_the_fingerprint_knows_weights_settings_images_transforms_and_precision(tmp_path: Path):
    model, frame = small_model(), small_frame(tmp_path)
    dataset = small_dataset(tmp_path, frame)
    known = fingerprint(model, dataset, half=False)
    assert fingerprint(model, small_dataset(tmp_path, frame.copy()), half=False) == known
    larger = get_normalisation_resize_torch(im_size=SIZE + 8)
    others = [
        fingerprint(model, dataset, half=True),
        fingerprint(model, small_dataset(tmp_path, frame[::-1].reset_index(drop=True)), half=False),
        fingerprint(model, small_dataset(tmp_path, frame.assign(label=frame.label + 1)), half=False),
        fingerprint(model, small_dataset(tmp_path, frame, transform=larger), half=False),
    ]
    with torch.no_grad():
        model.head[0].bias[0] += 1
    others.append(fingerprint(model, dataset, half=False))
    assert len({known, *others}) == 6
