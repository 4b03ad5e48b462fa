"""Kills whatever writes files, at random moments, and looks at what is left.

    python benchmarks/kill_everything.py --kills 200

For each kind of file a process writes one version after the other, and is killed (SIGKILL) at a random moment. What is
there afterwards must be the last version or the one that was being written, as a whole. The next process goes on from
it. The processes are forked from this one, which has everything imported: hundreds of kills take a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork

import numpy as np
import pandas as pd
import torch
import torchvision.transforms as t
from PIL import Image
from torch import Tensor, nn

from json_file import write_json
from oml_vit_ext.datasets.convert import convert
from oml_vit_ext.extractors import fit_pca, save_pca
from oml_vit_ext.extractors.pca import load_pca
from oml_vit_ext.oml_patches.checkpoint_files import CheckpointFiles, read_checkpoint
from oml_vit_ext.reranking.score_file import ScoreFile
from oml_vit_ext.retrieval import Embedder, SearchIndex
from oml_vit_ext.retrieval.index import Fingerprint

RESULT = Path(__file__).parent.parent / "docs" / "results" / "reliability.json"
DIM = 8
LONGEST_S = 120.0  # that a process may take for a version: more is a hang
BY_VERSION = 3  # images, and 100 scores, that each version adds
FRESH = 20  # kills after which the next ones begin with an empty folder: files that grow take longer and longer


class Written(ABC):
    """A kind of file in ``folder``, in versions 0, 1, 2, ... with a content that is known of each."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:  # noqa: B027  (most need nothing)
        """What a process does before its first version."""

    @abstractmethod
    def write(self, version: int) -> None:
        """Make ``version`` of the one before."""

    @abstractmethod
    def found(self) -> int:
        """The version that is there; fails if it is not whole, or there is none."""


class GrowingIndex(Written):
    """Images are added; every other save leaves the approximate index for the next one."""

    name = "`SearchIndex.save`, HNSW, images added"
    factory = "HNSW8"

    def open(self) -> None:
        place = self.folder / "index"
        if place.exists():
            self.index = SearchIndex.load(place)
        else:
            fingerprint = Fingerprint("Model", "0" * 32, "transforms", tuple(np.linspace(0.1, 1, DIM).tolist()))
            self.index = SearchIndex(self.folder, fingerprint, self.factory)

    def write(self, version: int) -> None:
        self.add(np.arange(version * BY_VERSION, (version + 1) * BY_VERSION))
        self.index.save(self.folder / "index", finish=version % 2 == 0)

    def add(self, numbers: np.ndarray[Any, Any]) -> None:
        frame = pd.DataFrame({"path": [f"{i:07d}.png" for i in numbers]})
        self.index.add_embeddings(frame, rows_of(numbers), self.index.fingerprint)

    def found(self) -> int:
        numbers = self.numbers()
        assert numbers == list(range(len(numbers))) and len(numbers) % BY_VERSION == 0
        return len(numbers) // BY_VERSION - 1

    def numbers(self) -> list[int]:
        """Of the images in the index, whose embeddings are theirs and which are found by these."""
        index = SearchIndex.load(self.folder / "index")
        numbers = [int(path[:-4]) for path in index.images.path]
        rows = rows_of(np.array(numbers))
        np.testing.assert_array_equal(index._table.rows().block(0, len(index)), rows)
        nearest = [hits[0].path for hits in index.search(rows[-BY_VERSION:], 1, search_params=self.thorough)]
        assert nearest == [f"{i:07d}.png" for i in numbers[-BY_VERSION:]]
        return numbers

    thorough = "efSearch=512"


class ChangingIndex(GrowingIndex):
    """Of twenty images and three more, the three are exchanged."""

    name = "`SearchIndex.save`, exact, images exchanged"
    factory, thorough = "Flat", ""

    def write(self, version: int) -> None:
        numbers = np.arange(version * BY_VERSION, (version + 1) * BY_VERSION) + 20
        if version == 0:
            self.add(np.arange(20))
        else:
            self.index.remove([f"{i - BY_VERSION:07d}.png" for i in numbers])
        self.add(numbers)
        self.index.save(self.folder / "index", finish=version % 2 == 0)

    def found(self) -> int:
        numbers = self.numbers()
        version, rest = divmod(numbers[20] - 20, BY_VERSION)
        assert numbers[:20] == list(range(20)) and rest == 0
        assert numbers[20:] == list(range(numbers[20], numbers[20] + BY_VERSION))
        return version


class SyncedIndex(Written):
    """A folder of pictures of one colour each, in which one is exchanged for another."""

    name = "`SearchIndex.sync` and `save`"

    def open(self) -> None:
        self.embedder = Embedder(MeanColour(), t.Compose([t.ToTensor()]), device="cpu")
        self.photos = self.folder / "photos"
        if (self.folder / "index").exists():
            self.index = SearchIndex.load(self.folder / "index")
        else:
            for i in range(5):
                paint(self.photos / f"stays-{i}.png", i)
            self.index = SearchIndex(self.photos, self.embedder.fingerprint)

    def write(self, version: int) -> None:
        paint(self.photos / f"{version}.png", version)
        (self.photos / f"{version - 1}.png").unlink(missing_ok=True)
        self.index.sync(self.photos, self.embedder)
        self.index.save(self.folder / "index")

    def found(self) -> int:
        index = SearchIndex.load(self.folder / "index")
        names = sorted(index.images.path)
        assert names[1:] == [f"stays-{i}.png" for i in range(5)]
        version = int(names[0][:-4])
        colours = [version if name == names[0] else int(name[6:-4]) for name in index.images.path]
        expected = np.array([colour_of(number) for number in colours], dtype=np.float32) / 255
        np.testing.assert_allclose(index._table.rows().block(0, len(index)), expected, atol=1e-6)
        return version


class Scores(Written):
    """Scores of pairs are added."""

    name = "`scores_file` of the re-ranker"

    def write(self, version: int) -> None:
        scores = ScoreFile(self.folder / "scores.npz", "fingerprint")
        pairs = np.stack([np.full(100, version), np.arange(100)], axis=1)
        scores.add(pairs, self.score_of(pairs))
        scores.write()

    def found(self) -> int:
        scores = ScoreFile(self.folder / "scores.npz", "fingerprint")
        version, rest = divmod(len(scores.pairs), 100)
        expected = np.stack([np.repeat(np.arange(version), 100), np.tile(np.arange(100), version)], axis=1)
        assert rest == 0 and (scores.pairs == expected).all() and (scores.scores == self.score_of(expected)).all()
        return version - 1

    @staticmethod
    def score_of(pairs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (pairs[:, 0] + pairs[:, 1] / 100).astype(np.float32)


class Components(Written):
    """A PCA is fitted on other embeddings and replaces the file."""

    name = "`fit_pca` and `save_pca`"

    def write(self, version: int) -> None:
        save_pca(fit_pca(self.embeddings(version), 4), self.folder / "pca.safetensors")

    def found(self) -> int:
        loaded = load_pca(self.folder / "pca.safetensors")
        version = round(float(loaded.mean[0]))
        expected = fit_pca(self.embeddings(version), 4)
        assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))
        return version

    @staticmethod
    def embeddings(version: int) -> Tensor:
        rows = torch.from_numpy(rows_of(np.arange(40) + 40 * version))
        return rows - rows.mean(dim=0) + version


class Converted(Written):
    """A tree with folders for classes, in which one image is exchanged, is converted again."""

    name = "`python -m oml_vit_ext.datasets convert`"

    def open(self) -> None:
        for i in range(4):
            paint(self.folder / "tree" / f"class {i % 2}" / f"stays-{i}.png", i)

    def write(self, version: int) -> None:
        paint(self.folder / "tree" / "class 1" / f"{version}.png", version)
        (self.folder / "tree" / "class 1" / f"{version - 1}.png").unlink(missing_ok=True)
        convert("folders", self.folder / "tree", train_labels=1, n_threads=1, verbose=False)

    def found(self) -> int:
        frame = pd.read_csv(self.folder / "tree" / "df.csv")
        names = sorted(Path(path).name for path in frame.path)
        assert names[1:] == [f"stays-{i}.png" for i in range(4)]
        assert set(frame.split) == {"train", "validation"} and len(frame) == len(frame.dropna(subset=["label"]))
        return int(names[0][:-4])


class Checkpoint(Written):
    """A checkpoint of a training replaces the one before. Whole trainings are killed in tests/pipelines."""

    name = "checkpoint of a training, the file"

    def write(self, version: int) -> None:
        content = {"global_step": version, "state_dict": {"w": torch.full((100_000,), float(version))}}
        CheckpointFiles().save_checkpoint(content, self.folder / "last.ckpt")

    def found(self) -> int:
        content = read_checkpoint(self.folder / "last.ckpt")
        version = int(content["global_step"])
        assert content["state_dict"]["w"].tolist() == [version] * 100_000
        return version


KINDS: tuple[type[Written], ...] = (
    GrowingIndex,
    ChangingIndex,
    SyncedIndex,
    Scores,
    Components,
    Converted,
    Checkpoint,
)


class MeanColour(nn.Module):
    """``(B, 3, H, W)`` -> ``(B, 3)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def rows_of(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``(n, DIM)``, each row a function of its number alone."""
    rows = [np.random.default_rng(int(i)).standard_normal(DIM) for i in numbers]
    return np.array(rows, dtype=np.float32)


def colour_of(number: int) -> tuple[int, int, int]:
    return 1 + number % 255, number // 255, 7


def paint(file: Path, number: int) -> None:
    """A picture that is there as a whole: what is tried is not how pictures are written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour_of(number)).save(content, "PNG")
    hidden = file.with_name(f".{file.name}.painted")
    hidden.write_bytes(content.getvalue())
    os.replace(hidden, file)


def kill(kind: type[Written], folder: Path, kills: int, moments: random.Random) -> dict[str, Any]:
    """Kill what writes this kind so often.

    Returns:
        How often; how many of the kills came while a version was being written, and how many of these left the last
        version and how many the new one; after how many there were temporary files. A last undisturbed write has
        removed them all.

    Raises:
        AssertionError, or any error of reading: A file is torn or lost, or temporary files stay.
    """
    written = kind(folder)
    parent = os.getpid()
    progress = mmap.mmap(-1, 24)  # shared with the child: version that it writes, that it has written, CPU time of it

    def state() -> tuple[int, int]:
        begun, done = struct.unpack("qq", progress[:16])
        return begun, done

    def keep_writing(n_versions: float = math.inf) -> None:
        written.open()
        version, last = state()[1], state()[1] + n_versions
        while version < last and os.getppid() == parent:  # not for ever, should this one be killed instead
            version += 1
            progress[:8] = struct.pack("q", version)
            begun = time.process_time()
            written.write(version)
            progress[8:] = struct.pack("qd", version, time.process_time() - begun)

    written.open()
    for version in range(2):  # imports what the children shall not import again
        written.write(version)
    there = written.found()
    # One child is left alone: the first version of each takes longer than its later ones, as its memory is copied.
    progress[:16] = struct.pack("qq", there, there)
    os.waitpid(_forked(lambda: keep_writing(1)), 0)
    duration = struct.unpack("d", progress[16:])[0]
    counts = {"within": 0, "old": 0, "new": 0, "left_over": 0}
    there = written.found()
    for _ in range(kills):
        progress[:16] = struct.pack("qq", there, there)
        child = _forked(keep_writing)
        try:
            deadline = time.monotonic() + LONGEST_S
            while state()[0] == there:
                if os.waitpid(child, os.WNOHANG)[0] or time.monotonic() > deadline:
                    raise RuntimeError(f"{kind.name}: the process that writes version {there + 1} hangs or has failed.")
                time.sleep(0.0002)
            until = _work_of(child) + moments.uniform(0, 1.5 * duration)
            while _work_of(child) < until:
                if time.monotonic() > deadline:  # no moment to kill it at, but a fault
                    raise RuntimeError(f"{kind.name}: the process that writes version {state()[0]} hangs.")
                time.sleep(0.0002)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            raise RuntimeError(f"{kind.name}: the process that wrote version {state()[0]} failed by itself.")
        begun, done = state()
        there = written.found()
        assert done <= there <= begun, f"{kind.name}: version {there} is there, expected {done} or {begun}."
        counts["within"] += begun > done
        counts["old"] += begun > done and there == done
        counts["new"] += begun > done and there == begun
        counts["left_over"] += bool(temporary_files(folder))
    written.open()
    written.write(there + 1)
    assert written.found() == there + 1
    stay = temporary_files(folder)
    assert not stay or sys.platform != "linux", f"{kind.name}: {stay} stay."
    return {"kills": kills, **counts, "torn": 0}


def _work_of(process: int) -> float:
    """CPU time of another process in s: on a busy machine, the clock would run while it waits for its turn."""
    if sys.platform != "linux":
        return time.monotonic()
    return time.clock_gettime((~process << 3) | 2)  # what clock_getcpuclockid gives


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name]


def _forked(work: Any) -> int:
    """The number of a process that does ``work`` and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def table(result: dict[str, Any]) -> str:
    """The rows of docs/reliability.md."""
    lines = [
        "| what is written | kills | while writing | left the old one | left the new one | torn or lost |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result["kinds"].items():
        columns = [found[key] for key in ("kills", "within", "old", "new", "torn")]
        lines.append(f"| {name} | " + " | ".join(map(str, columns)) + " |")
    return "\n".join(lines)


def kill_often(kind: type[Written], kills: int, seed: int) -> dict[str, Any]:
    """:func:`kill` in several folders, one after the other; the sums."""
    moments, found = random.Random(seed), []
    for start in range(0, kills, FRESH):
        folder = Path(tempfile.mkdtemp(prefix="kill-"))
        try:
            found.append(kill(kind, folder, min(FRESH, kills - start), moments))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    counts = {key: sum(part[key] for part in found) for key in found[0]}
    print(kind.name, json.dumps(counts), flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="kinds at the same time (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=RESULT, help="default: docs/results/reliability.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*is half-finished")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")
    with multiprocessing.get_context("fork").Pool(args.jobs) as pool:
        counted = pool.starmap(kill_often, [(kind, args.kills, args.seed) for kind in KINDS], chunksize=1)
    kinds = {kind.name: counts for kind, counts in zip(KINDS, counted, strict=True)}
    result = {
        "command": f"python benchmarks/kill_everything.py --kills {args.kills} --seed {args.seed}",
        "kinds": kinds,
    }
    print(table(result))
    write_json(args.to, result)


if __name__ == "__main__":
    main()
