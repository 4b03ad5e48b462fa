"""Embeddings of many images on disk, in files of a few thousand: an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oml_vit_ext.common.array_files import read_array, write_array
from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.progress import progress
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint

_MODEL = "model.json"
_ROWS_AT_ONCE = 65_536


def embed_into(
    folder: str | Path, embedder: Embedder, paths: Sequence[Path], *, per_file: int = 10_000, verbose: bool = False
) -> int:
    """Embed the images that ``folder`` does not hold yet, ``per_file`` to a ``.npy`` file, for :func:`stored_chunks`.

    Images that cannot be read are left out; a distractor more or less does not matter.

    Returns:
        How many could not be read, in this run.

    Raises:
        ValueError: The folder holds embeddings of another model or of other images, or of an unknown one.
    """
    folder = Path(folder)
    _claim(folder, embedder.fingerprint, paths, per_file)
    n_broken = 0
    with progress(total=len(paths), desc="Embedding distractors", unit=" images", verbose=verbose) as bar:
        for start in range(0, len(paths), per_file):
            part = paths[start : start + per_file]
            file = folder / f"{start:09}.npy"
            if not file.is_file():
                batches = list(embedder.embed(part))
                n_broken += sum(len(batch.broken) for batch in batches)
                store(np.concatenate([batch.embeddings for batch in batches]), file)
            bar.update(len(part))
    return n_broken


def stored_chunks(source: str | Path, rows: int = _ROWS_AT_ONCE) -> Iterator[Floats]:
    """Embeddings on disk in chunks of up to ``rows``: a ``.npy`` matrix, or a folder of them in the order of names.

    Raises:
        FileNotFoundError: There is no such file, or the folder holds none.
        ValueError: A file holds no matrix of floating-point numbers, or is cut short.
    """
    check_whole("rows", rows, 1)
    for file in _stored_files(source):
        matrix = _open(file)
        for start in range(0, len(matrix), rows):
            yield np.ascontiguousarray(matrix[start : start + rows], dtype=np.float32)


def n_stored(source: str | Path) -> int:
    """How many embeddings :func:`stored_chunks` gives."""
    return sum(len(_open(file)) for file in _stored_files(source))


def store(embeddings: NDArray[np.floating[Any]], file: str | Path) -> None:
    """Write a ``.npy`` file."""
    with replaced(file) as unfinished:
        write_array(embeddings, unfinished)


def check_model(folder: str | Path, fingerprint: Fingerprint) -> None:
    """Raise a ``ValueError`` unless the embeddings in ``folder`` are known to come from this model."""
    file = Path(folder) / _MODEL
    if not file.is_file():
        raise ValueError(f"{folder} has no {_MODEL}, so nobody knows which model its embeddings come from.")
    stored, _ = _read_model(file)
    stored.check_same(fingerprint, f"the embeddings in {folder}", "the queries")


def _claim(folder: Path, fingerprint: Fingerprint, paths: Sequence[Path], per_file: int) -> None:
    """Write down which model and images the folder is for, or compare."""
    images = {"first": Path(paths[0]).name, "last": Path(paths[-1]).name, "n": len(paths), "per_file": per_file}
    file = folder / _MODEL
    if file.is_file():
        check_model(folder, fingerprint)
        _, known = _read_model(file)
        if known != images:
            raise ValueError(
                f"{folder} holds embeddings of other images, {known}, expected {images}: choose a new one."
            )
        return
    if stored := sorted(folder.glob("*.npy")):
        raise ValueError(f"{folder} holds {stored[0].name}, of which nobody knows the model: choose a new folder.")
    with replaced(file) as unfinished:
        unfinished.write_text(json.dumps({"model": fingerprint.to_dict(), "images": images}, indent=1))


def _read_model(file: Path) -> tuple[Fingerprint, Any]:
    """Model and images that the embeddings beside ``file`` are of."""
    try:
        content = json.loads(file.read_text())
        return Fingerprint.from_dict(content["model"]), content["images"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}).") from error


def _stored_files(source: str | Path) -> list[Path]:
    source = Path(source)
    files = sorted(source.glob("*.npy")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{source} is missing or holds no .npy files: expected stored embeddings.")
    return files


def _open(file: Path) -> NDArray[np.floating[Any]]:
    matrix = read_array(file, mmap=True)
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:  # without a width, any number of rows
        raise ValueError(f"{file} holds {matrix.dtype} of shape {matrix.shape}, expected floats of shape (rows, dim).")
    return matrix
