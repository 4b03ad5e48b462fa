"""Brings an index up to date: which images are new, changed, renamed or gone, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oml_vit_ext.common.arrays import Box, Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted, printable
from oml_vit_ext.images.sizes import look_at_images
from oml_vit_ext.retrieval.index.content import digests, is_gone, stamp
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.grid import grid_boxes, rows_per_image
from oml_vit_ext.retrieval.index.image_list import folder_below_root, list_images, parse_box

if TYPE_CHECKING:
    from oml_vit_ext.retrieval.index.image_index import ImageIndex


class Known(NamedTuple):
    """What an index keeps of an image's file, and its label."""

    size: int  # bytes
    mtime_ns: int
    digest: str  # of the content; empty if it is not known
    label: str


@dataclass
class AddReport:
    """What became of the images given to ``add`` or ``sync``; reports can be summed."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    renamed: int = 0
    removed: int = 0

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.broken + other.broken,
            self.renamed + other.renamed,
            self.removed + other.removed,
        )

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.changed} changed, {self.unchanged} unchanged, {len(self.broken)} broken"
        counts += "".join(f", {n} {what}" for n, what in ((self.renamed, "renamed"), (self.removed, "removed")) if n)
        return "\n".join([counts, *(f"  broken: {printable(f'{path}: {reason}')}" for path, reason in self.broken)])


class Parts:
    """How a long update is cut: images between two writes, and what is done after each but the last."""

    def __init__(self, size: int, after: Callable[[], None] | None) -> None:
        self.size = check_whole("part_size", size, 1)
        self.after = after or (lambda: None)


def update(
    index: ImageIndex,
    source: Path | str | pd.DataFrame,
    embedder: Embedder,
    verbose: bool,
    *,
    exactly: bool,
    parts: Parts,
) -> AddReport:
    """What :meth:`ImageIndex.add` and, ``exactly``, :meth:`ImageIndex.sync` do; arguments and errors as there."""
    index.check_model(embedder.fingerprint, "the images")
    images = list_images(source, index.root)
    report = AddReport()
    if len(images) == 0 and not exactly:
        return report
    known = index._stamps(images.key.tolist())
    given = zip(images.key, images.label, strict=True)
    labels = [label or (known[key].label if key in known else "") for key, label in given]
    images = images.assign(label=np.array(labels, dtype=object))
    now = zip(images.key, images["size"], images.mtime_ns, images.label, strict=True)
    same = np.array([key in known and _is_as_known(known[key], *of_file) for key, *of_file in now], dtype=bool)
    report.unchanged = int(same.sum())
    left = _left(index, source, images, exactly)
    todo = images[~same].reset_index(drop=True)
    taken_over = _take_over(index, todo, known, left, report)
    _check_root(index, left, report)
    todo = todo[~taken_over].reset_index(drop=True)
    if len(todo):
        report += _embed_and_store(index, todo, embedder, verbose, parts)
    no_longer_read = [key for key, _ in report.broken if key in known]
    report.changed = sum(key in known for key in todo.key) - len(no_longer_read)
    report.added -= report.changed
    if len(images) and len(report.broken) == len(images):
        path, reason = report.broken[0]
        raise ValueError(f"None of the {counted(len(images), 'image')} can be used; the first, {path!r}: {reason}.")
    leaving = [*left.key, *(no_longer_read if exactly else [])]
    if leaving:
        index._drop(leaving)
    report.removed = len(leaving) - report.renamed
    if known or report.renamed:
        index.moved_from = None
    return report


def _check_root(index: ImageIndex, left: pd.DataFrame, report: AddReport) -> None:
    """Refuse another root that has none of the images: the whole index would be exchanged."""
    if index.moved_from is None or report.renamed or not 0 < len(left) == len(index):
        return
    raise ValueError(
        f"The root is {str(index.root)!r}, but {counted(len(left), 'image')} of the index, made for "
        f"{str(index.moved_from)!r}, cannot be found below it by name or content: expected the folder where they "
        f"are now. For other images make another index."
    )


def _left(index: ImageIndex, source: Path | str | pd.DataFrame, images: pd.DataFrame, exactly: bool) -> pd.DataFrame:
    """What the index holds of the source, but is no longer listed there."""
    if isinstance(source, pd.DataFrame) and not exactly:
        return pd.DataFrame({column: [] for column in ("key", "path", "box", "label", "size", "digest")})
    held = index.images
    if isinstance(source, pd.DataFrame):
        return held[~held.key.isin(images.key)]
    below = folder_below_root(source, index.root) or ""
    listed = set(images.path)
    left = [
        path.startswith(below) and path not in listed and (exactly or is_gone(index.root / path)) for path in held.path
    ]
    return held[np.array(left, dtype=bool)]


def _take_over(
    index: ImageIndex, todo: pd.DataFrame, known: Mapping[str, Known], left: pd.DataFrame, report: AddReport
) -> NDArray[np.bool_]:
    """Give images whose content is in the index already, under another name or time, the embedding from there."""
    renamed = {(d, box): key for d, box, key in zip(left.digest, left.box, left.key, strict=True) if d}
    sizes = {int(size) for size in left["size"]}
    maybe = [
        i
        for i, (key, size) in enumerate(zip(todo.key, todo["size"], strict=True))
        if int(size) in sizes or (key in known and known[key].size == size and known[key].digest)
    ]
    donors: dict[int, str] = {}
    found = digests([index.root / todo.path[i] for i in maybe])
    for i, digest in zip(maybe, found, strict=True):
        key = todo.key[i]
        if digest and key in known and known[key].digest == digest:
            donors[i] = key
        elif digest and key not in known and (digest, todo.box[i]) in renamed:
            donors[i] = renamed.pop((digest, todo.box[i]))
    if donors:
        content = dict(zip(maybe, found, strict=True))
        labels = dict(zip(left.key, left.label, strict=True))
        rows = todo.iloc[list(donors)].assign(
            digest=[content[i] for i in donors],
            label=np.array([todo.label[i] or labels.get(donor, "") for i, donor in donors.items()], dtype=object),
        )
        rows = rows.reset_index(drop=True)
        index._store(_with_regions(index, rows), index._embeddings_of(list(donors.values())))
    n_same = sum(todo.key[i] == donor for i, donor in donors.items())
    report.unchanged += n_same
    report.renamed = len(donors) - n_same
    return np.isin(np.arange(len(todo)), list(donors))


def _embed_and_store(
    index: ImageIndex, images: pd.DataFrame, embedder: Embedder, verbose: bool, parts: Parts
) -> AddReport:
    """In whatever order embeddings come (on a cluster: as blocks are finished), part by part."""
    images = _with_regions(index, images)
    per_image = rows_per_image(index.grid)
    paths = [index.root / path for path in images.path for _ in range(per_image)]
    boxes = [box for row in images.itertuples() for box in _boxes(index, row)]
    rows: dict[int, dict[int, Floats]] = {}  # of an image, by its parts
    whole: list[int] = []  # images of which all rows are there
    broken: dict[int, str] = {}  # by the image, with the first reason
    report = AddReport()
    for batch in embedder.embed(paths, boxes, verbose=verbose):
        for position, reason in batch.broken:
            broken.setdefault(position // per_image, reason)
            rows.pop(position // per_image, None)
        for position, row in zip(batch.positions, batch.embeddings, strict=True):
            image, part = divmod(position, per_image)
            if image not in broken:
                rows.setdefault(image, {})[part] = row
                whole += [image] if len(rows[image]) == per_image else []
        if len(whole) >= parts.size:
            report.added += _store_rows(index, images, whole, rows)
            parts.after()
    report.added += _store_rows(index, images, whole, rows)
    report.broken = [(str(images.key[i]), reason) for i, reason in sorted(broken.items())]
    return report


def _store_rows(index: ImageIndex, images: pd.DataFrame, whole: list[int], rows: dict[int, dict[int, Floats]]) -> int:
    """Store these images, whose number it returns, and forget their rows."""
    whole.sort()
    if whole:
        embedded = images.iloc[whole].reset_index(drop=True)
        of_each = [rows.pop(image) for image in whole]
        embeddings = np.stack([np.concatenate([of_one[part] for part in sorted(of_one)]) for of_one in of_each])
        index._store(embedded.assign(digest=_digests(index, embedded)), embeddings)
    n_stored = len(whole)
    whole.clear()
    return n_stored


def _with_regions(index: ImageIndex, images: pd.DataFrame) -> pd.DataFrame:
    """With a grid: whose parts are taken, the image or its box, as a box; empty if the file cannot be read."""
    if not index.grid:
        return images
    sizes = look_at_images(index.root, images.path.tolist(), verbose=False)
    regions = []
    for box, size in zip(images.box, sizes, strict=True):
        if isinstance(size, str):
            regions.append("")
        else:
            regions.append(box or f"0,0,{','.join(map(str, size[1::-1] if size.turned else size[:2]))}")
    return images.assign(region=np.array(regions, dtype=object))


def _boxes(index: ImageIndex, image: Any) -> list[Box | None]:
    """What is embedded of an image: itself, then its parts; itself in their place if it cannot be read."""
    region = parse_box(image.region) if index.grid else None
    parts = [None] * index.grid**2 if region is None else grid_boxes(region, index.grid)
    return [parse_box(image.box), *parts]


def _digests(index: ImageIndex, images: pd.DataFrame) -> list[str]:
    """Of the content that was embedded: empty for a file that has changed meanwhile."""
    paths = [index.root / path for path in images.path]
    stamps = zip(images["size"], images.mtime_ns, strict=True)
    found = zip(digests(paths), paths, stamps, strict=True)
    return [digest if stamp(path) == known else "" for digest, path, known in found]


def _is_as_known(known: Known, size: int, mtime_ns: int, label: str) -> bool:
    return (known.size, known.mtime_ns, known.label) == (size, mtime_ns, label)
