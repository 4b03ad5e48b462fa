"""What a pair model makes of each image alone, kept on disk: a query decodes itself and none of its candidates."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from oml_vit_ext.common.array_files import write_array
from oml_vit_ext.common.arrays import Box
from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.files import UNFINISHED, check_lock, replaced, stamp
from oml_vit_ext.common.hashing import hash_state
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.loading import load_images
from oml_vit_ext.reranking.scoring import device_of
from oml_vit_ext.reranking.siamese import STIRSiamese
from oml_vit_ext.reranking.token_files import PRECISIONS, pack_tokens
from oml_vit_ext.transforms.boxed_images import BoxedImages

_AT_ONCE = 32
_UNFINISHED = re.compile(UNFINISHED.format("[0-9a-f]{32}"))
_LOCK = ".lock"
_HEADER = 128  # bytes of an .npy file before its numbers


class Images(Protocol):
    """What a ``SearchIndex`` shows of its images: columns ``path`` and ``box``, and the folder they are below."""

    root: Path

    @property
    def images(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class SyncReport:
    """What a sync did: images that were encoded, were there, were taken away, found no room, and cannot be read."""

    encoded: int
    unchanged: int
    removed: int
    without_room: int
    unreadable: int
    mb: float  # on disk now, 1e6 bytes

    def __str__(self) -> str:
        told = f"{self.encoded} encoded, {self.unchanged} unchanged, {self.removed} removed, {self.mb:.1f} MB"
        told += f", {self.without_room} without room (max_mb)" if self.without_room else ""
        return told + (f", {self.unreadable} unreadable" if self.unreadable else "")


class TokenStore:
    """A folder with one file for each image: the tokens that ``STIRSiamese.encode`` makes of it.

    Files are named after the path, the box, the size and the time of change of the image, in a folder named after the
    model and the transform. So tokens of a changed image, of another model or another transform are never used;
    ``sync`` takes them away. Each file is written under another name and renamed: a crash leaves none that is cut
    short.

    Args:
        folder: Where the tokens lie, for instance beside the index: ``photo_index.tokens``.
        model: A ``STIRSiamese`` whose tokens are kept; with ``join_layer=0`` they are patch embeddings, the pair's
            blocks are then all still to be computed.
        transform: Of its images.
        precision: ``half`` (2 bytes a number), or ``int8`` (1 byte, and 2 for the largest number of each token).
        max_mb: The most that the files may take, in MB (1e6 bytes). Images without room are decoded when they are
            needed.

    Raises:
        ValueError: ``precision`` is not known, or ``max_mb`` is not positive.
        TypeError: ``model`` is no ``STIRSiamese``.
    """

    def __init__(
        self,
        folder: Path | str,
        model: STIRSiamese,
        transform: Any,
        *,
        precision: str = "half",
        max_mb: float = 10_000,
    ) -> None:
        if not isinstance(model, STIRSiamese):
            raise TypeError(
                f"model is a {type(model).__name__}, expected a STIRSiamese: it alone encodes single images."
            )
        if precision not in PRECISIONS:
            raise ValueError(unknown_name("precision", precision, PRECISIONS))
        self.max_mb = check_number("max_mb", max_mb, 0.001)
        self.model, self.transform, self.precision = model, transform, precision
        self.folder = Path(folder).absolute()
        self._files = self.folder / _fingerprint(model, transform, precision)

    @property
    def is_there(self) -> bool:
        """Whether a sync has kept tokens of this model, transform and precision."""
        return self._files.is_dir()

    def files(self, paths: Sequence[Path], boxes: Sequence[Box | None]) -> list[Path | None]:
        """For each image its file, ``None`` where there is none; for ``rerank_hits``."""
        places = (self._place(path, box) for path, box in zip(paths, boxes, strict=True))
        return [place if place.is_file() else None for place in places]

    def sync(self, index: Images, *, num_workers: int = 0, verbose: bool = False) -> SyncReport:
        """Hold the tokens of exactly the images that an index holds, after ``add``, ``sync`` or ``remove`` of it.

        Images that cannot be read are left out: the index tells of them.

        Args:
            index: A ``SearchIndex`` or ``MilvusIndex``.
            num_workers: Processes that decode.
            verbose: Show progress.

        Raises:
            OSError: The folder cannot be written, or the disk is full; what was written before is whole.
            RuntimeError: Another process or thread is doing so.
            ValueError: The transform makes images of several sizes.
        """
        with self._alone():
            return self._sync(index, num_workers, verbose)

    def _sync(self, index: Images, num_workers: int, verbose: bool) -> SyncReport:
        images = index.images
        paths = [Path(index.root) / path for path in images.path]
        boxes = [_box(box) for box in images.box]
        places = [self._place(path, box) for path, box in zip(paths, boxes, strict=True)]
        wanted = {place.name for place in places}
        removed = self._remove_others(wanted)
        there = self._sizes()
        todo = [i for i, place in enumerate(places) if place.name not in there]
        limit, used, done, unreadable = self.max_mb * 1e6, sum(there.values()), 0, 0
        dataset = BoxedImages(paths, boxes, self.transform)
        with progress(total=len(todo), desc="Encoding images", unit=" images", verbose=verbose) as bar:
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                encoded = self._encode(dataset, part, num_workers)
                unreadable += len(part) - len(encoded)
                packed = {i: pack_tokens(tokens, self.precision) for i, tokens in encoded}
                fitting = [i for i, array in packed.items() if (used := used + array.nbytes + _HEADER) <= limit]
                for i in fitting:
                    with replaced(places[i]) as unfinished:
                        write_array(packed[i], unfinished)
                done += len(fitting)
                bar.update(len(part))
                if len(fitting) < len(encoded):
                    break
        size = sum(self._sizes().values())
        return SyncReport(done, len(there), removed, len(todo) - done - unreadable, unreadable, size / 1e6)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One sync at a time: it takes away what is not its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        check_lock(self.folder / _LOCK)
        lock = FileLock(self.folder / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RuntimeError(
                f"The tokens in {str(self.folder)!r} are being written by another process or thread: wait until it has "
                f"finished."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _sizes(self) -> dict[str, int]:
        """Bytes of each file, by its name."""
        return {file.name: file.stat().st_size for file in self._files.glob("*.npy") if _is_hash(file.stem)}

    def _encode(self, dataset: Any, rows: list[int], num_workers: int) -> list[tuple[int, Tensor]]:
        """Images with their tokens; those that cannot be read are missing."""
        try:
            ((ids, images),) = load_images(dataset, [rows], num_workers)
        except RuntimeError:  # one of them cannot be read
            return [] if len(rows) == 1 else [pair for row in rows for pair in self._encode(dataset, [row], 0)]
        with evaluating(self.model), torch.inference_mode():
            encoded = self.model.encode(images.to(device_of(self.model))).float().cpu()
        return list(zip(ids, encoded, strict=True))

    def _place(self, path: Path, box: Box | None) -> Path:
        size, time = stamp(path)
        name = f"{os.fsdecode(path)}|{box}|{size}|{time}"
        return self._files / f"{hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()}.npy"

    def _remove_others(self, wanted: set[str]) -> int:
        """Files of images that are gone or changed, and all of other models; how many the former were."""
        if not self.folder.is_dir():
            return 0
        for other in self.folder.iterdir():
            if other != self._files and _is_hash(other.name) and not other.is_symlink() and other.is_dir():
                _remove_tokens(other)
        stale = [file for file in self._files.glob("*.npy") if file.name not in wanted and _is_hash(file.stem)]
        for file in stale:
            file.unlink()
        return len(stale)


def _fingerprint(model: STIRSiamese, transform: Any, precision: str) -> str:
    steps = re.sub(r" at 0x[0-9a-f]+", "", repr(transform))
    settings = f"{hash_state(model.state_dict())}|{model.join_layer}|{steps}|{precision}"
    return hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()


def _remove_tokens(folder: Path) -> None:
    """A folder with tokens of another model; one that holds anything else is somebody else's and stays."""
    files = list(folder.iterdir())
    if all(_is_tokens(file.name) and not file.is_dir() for file in files):
        for file in files:
            file.unlink(missing_ok=True)
        folder.rmdir()


def _is_tokens(name: str) -> bool:
    return (name.endswith(".npy") and _is_hash(name.removesuffix(".npy"))) or _UNFINISHED.fullmatch(name) is not None


def _is_hash(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def _box(box: str) -> Box | None:
    if not box:
        return None
    x_1, y_1, x_2, y_2 = map(int, box.split(","))
    return x_1, y_1, x_2, y_2
