"""A file of scores: nothing that anybody wrote is lost, and nothing is taken for scores that is none."""

from __future__ import annotations

import io
import multiprocessing
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.limits import file_size_limit
from oml_vit_ext.common.array_files import write_arrays
from oml_vit_ext.reranking.score_file import ScoreFile


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
