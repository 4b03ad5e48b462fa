"""Scores on disk: found by their pair, whole at any time, and never those of something else."""

from __future__ import annotations

import io
import multiprocessing
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oml.transforms.images.torchvision import get_normalisation_resize_torch

from helpers.limits import file_size_limit
from helpers.photos import SIZE, small_dataset, small_frame, small_model
from oml_vit_ext.common.array_files import write_arrays
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


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".x.npz.lock").symlink_to(tmp_path / "victim")
    file = ScoreFile(tmp_path / "x.npz", "me")
    file.add(_pairs((0, 1)), _scores(0.5))
    with pytest.raises(OSError, match="is a link, expected a file of its own"):
        file.write()
    assert (tmp_path / "victim").read_text() == "mine"


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


def some_pairs(start: int, n: int = 10) -> np.ndarray:
    return np.stack([np.arange(start, start + n), np.arange(n)], axis=1)


def scores_of(pairs: np.ndarray) -> np.ndarray:
    return (pairs[:, 0] + pairs[:, 1] / 100).astype(np.float32)


def check_holds(path: Path, pairs: np.ndarray) -> None:
    file = ScoreFile(path, "model")
    np.testing.assert_array_equal(file.known(pairs), scores_of(pairs))
    assert len(file.pairs) == len(np.unique(file.pairs, axis=0))


def write_many(path: Path, first: int) -> None:
    """Ten writes of one object."""
    file = ScoreFile(path, "model")
    for start in range(first, first + 100, 10):
        file.add(some_pairs(start), scores_of(some_pairs(start)))
        file.write()


def test_objects_and_threads_with_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    threads = [threading.Thread(target=write_many, args=(path, 1_000 * i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_holds(path, np.concatenate([some_pairs(1_000 * i + j) for i in range(6) for j in range(0, 100, 10)]))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".scores.npz.lock", "scores.npz"]


def test_processes_with_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    processes = [context.Process(target=write_many, args=(path, 1_000 * i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    check_holds(path, np.concatenate([some_pairs(1_000 * i + j) for i in range(3) for j in range(0, 100, 10)]))


def test_another_model_does_not_replace_what_was_written_meanwhile(tmp_path: Path) -> None:
    one, other = ScoreFile(tmp_path / "x.npz", "model"), ScoreFile(tmp_path / "x.npz", "other")
    for file in (one, other):
        file.add(some_pairs(0), scores_of(some_pairs(0)))
    one.write()
    with pytest.raises(ValueError, match="holds scores of another model"):
        other.write()
    check_holds(tmp_path / "x.npz", some_pairs(0))


def test_what_could_not_be_written_is_written_next_time(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    file = ScoreFile(path, "model")
    file.add(some_pairs(0, 500), scores_of(some_pairs(0, 500)))
    with file_size_limit(3_000), pytest.raises(OSError):
        file.write()
    assert [p.name for p in tmp_path.iterdir()] == [".scores.npz.lock"]
    file.write()
    check_holds(path, some_pairs(0, 500))


def test_what_killed_processes_left_goes_with_the_next_write(tmp_path: Path) -> None:
    left = [".scores.12-345.partial.npz", ".scores.7-8.partial.npz"]
    theirs = [".scores.12-345.partial.csv", ".other.12-345.partial.npz", "scores.partial.npz", ".scores.x.partial.npz"]
    for name in left + theirs:
        (tmp_path / name).write_text("x")
    write_many(tmp_path / "scores.npz", 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*theirs, ".scores.npz.lock", "scores.npz"])


def _good() -> dict[str, Any]:
    pairs = some_pairs(0)
    return {"fingerprint": np.array("model"), "pairs": pairs, "scores": scores_of(pairs)}


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": np.zeros(10, np.int64)},
        {"pairs": np.zeros((10, 3), np.int64)},
        {"pairs": np.zeros((10, 2))},
        {"pairs": np.full((10, 2), -1)},
        {"pairs": np.full((10, 2), 2**40)},
        {"pairs": np.zeros((9, 2), np.int64)},
        {"scores": np.full(10, np.nan, np.float32)},
        {"scores": np.zeros(10)},
        {"scores": np.zeros((10, 1), np.float32)},
    ],
)
def test_arrays_that_are_no_scores_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_arrays({**_good(), **change}, tmp_path / "scores.npz")
    with pytest.raises(RuntimeError, match=r"scores\.npz' is not a file of scores"):
        ScoreFile(tmp_path / "scores.npz", "model")


def test_a_file_that_announces_more_than_it_has_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scores.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {**_good(), "scores": np.zeros(5_000_000, np.float32)}.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())
    with pytest.raises(RuntimeError, match=r"scores\.npz' is not a file of scores"):
        ScoreFile(tmp_path / "scores.npz", "model")


def test_files_that_are_no_parts_stay(tmp_path: Path):
    """A copy that somebody keeps beside it is theirs; and names may hold what patterns understand otherwise."""
    model, dataset = small_model(), small_dataset(tmp_path)
    path, belongs_to = tmp_path / "x[1].npz", fingerprint(model, dataset, half=False)
    for name, pair, score in (("x[1].npz.rank_before", (0, 1), 0.1), ("x[1].npz.rank1", (0, 2), 0.2)):
        part = ScoreFile(tmp_path / name, belongs_to)
        part.add(_pairs(pair), _scores(score))
        part.write()
    shared = SharedScoreFile(path, model, dataset, half=False)
    shared.close(_pairs((0, 3)), _scores(0.3))
    found = ScoreFile(path, belongs_to).known(_pairs((0, 1), (0, 2), (0, 3)))
    np.testing.assert_array_equal(found, _scores(np.nan, 0.2, 0.3))
    assert {file.name for file in tmp_path.glob("x*")} == {"x[1].npz", "x[1].npz.rank_before"}
