"""Descriptors of many images on disk, in files of a few thousand: an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from oml_vit_ext.common.files import replaced
from oml_vit_ext.retrieval.index.embedder import Box, Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.revisited.distractors import store
from oml_vit_ext.retrieval.rows import Floats

_MODEL = "model.json"


def describe_into(
    folder: str | Path, embedder: Embedder, paths: Sequence[Path], *, per_file: int = 10_000, verbose: bool = False
) -> int:
    """Describe images that ``folder`` does not hold yet, ``per_file`` to a ``.npy`` file, for ``stored_chunks``.

    Images that cannot be read are left out; a distractor more or less does not matter.

    Returns:
        How many could not be read, in this run.

    Raises:
        ValueError: The folder holds descriptors of another model or of other images.
    """
    folder = Path(folder)
    _claim(folder, embedder.fingerprint, paths, per_file)
    n_broken = 0
    with tqdm(total=len(paths), desc="Describing distractors", unit=" images", disable=not verbose) as bar:
        for start in range(0, len(paths), per_file):
            part = paths[start : start + per_file]
            file = folder / f"{start:09}.npy"
            if not file.is_file():
                described = list(embedder.describe(part))
                n_broken += sum(len(d.broken) for d in described)
                store(np.concatenate([d.descriptors for d in described]), file)
            bar.update(len(part))
    return n_broken


def describe_whole(
    embedder: Embedder, paths: Sequence[Path], boxes: Sequence[Box | None] | None = None, *, verbose: bool = False
) -> Floats:
    """Descriptors ``(len(paths), D)`` of images, or of the parts of them inside ``boxes``, in order.

    Raises:
        ValueError: An image cannot be read: without it the ground truth would be wrong.
    """
    parts = []
    for described in embedder.describe(paths, boxes, verbose=verbose):
        if described.broken:
            position, reason = described.broken[0]
            raise ValueError(f"The image {paths[position]} cannot be used: {reason}.")
        parts.append(described.descriptors)
    return np.concatenate(parts)


def check_model(folder: str | Path, fingerprint: Fingerprint) -> None:
    """Raise a ``ValueError`` unless the descriptors in ``folder`` are known to come from this model."""
    file = Path(folder) / _MODEL
    if not file.is_file():
        raise ValueError(f"{folder} has no {_MODEL}, so nobody knows which model its descriptors come from.")
    stored = Fingerprint.from_dict(json.loads(file.read_text())["model"])
    stored.check_same(fingerprint, f"the descriptors in {folder}", "the queries")


def _claim(folder: Path, fingerprint: Fingerprint, paths: Sequence[Path], per_file: int) -> None:
    """Write down which model and images the folder is for, or compare."""
    images = {"first": Path(paths[0]).name, "last": Path(paths[-1]).name, "n": len(paths), "per_file": per_file}
    file = folder / _MODEL
    if file.is_file():
        check_model(folder, fingerprint)
        known = json.loads(file.read_text())["images"]
        if known != images:
            raise ValueError(
                f"{folder} holds descriptors of other images, {known}, expected {images}: choose a new one."
            )
        return
    with replaced(file) as unfinished:
        unfinished.write_text(json.dumps({"model": fingerprint.to_dict(), "images": images}, indent=1))
