"""What every index of images does, wherever it keeps its embeddings: add what is new, answer an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.arrays import Box, Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted, printable, unknown_name
from oml_vit_ext.images.sizes import look_at_images
from oml_vit_ext.retrieval.engines import Engine
from oml_vit_ext.retrieval.index.content import digests, is_gone, stamp
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.grid import grid_boxes, rows_per_image
from oml_vit_ext.retrieval.index.image_list import (
    folder_below_root,
    key_of,
    list_images,
    parse_box,
    relative_to_root,
)
from oml_vit_ext.retrieval.index.model_config import check_runs_no_code, plain
from oml_vit_ext.retrieval.old_names import OldIndexNames, takes_descriptors
from oml_vit_ext.retrieval.rows import Embeddings, Rows
from oml_vit_ext.retrieval.settings import Settings

PART_SIZE = 16_384  # images between two writes to the store
_COMPARED_NAMES = 10_000  # in order to name the nearest one


class Hit(NamedTuple):
    """One retrieved image: its path below the root, the Euclidean distance, its label and box if it has them.

    With a grid, ``crop`` is the part that was nearest, as a box in px of the upright image; empty: the whole.
    """

    path: str
    distance: float
    label: str
    box: str
    crop: str = ""


class Known(NamedTuple):
    """What an index keeps of an image's file, and its label."""

    size: int  # bytes
    mtime_ns: int
    digest: str  # of the content; empty if it is not known
    label: str


class Searchable(NamedTuple):
    """The embeddings of an index, what finds rows of them, and what a row that was found shows of its image."""

    rows: Rows
    engine: Engine
    hit: Callable[[int, float], Hit]  # of a row and its distance


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


def _is_as_known(known: Known, size: int, mtime_ns: int, label: str) -> bool:
    return (known.size, known.mtime_ns, known.label) == (size, mtime_ns, label)


class _Parts:
    """How a long update is cut: images between two writes, and what is done after each but the last."""

    def __init__(self, size: int, after: Callable[[], None] | None) -> None:
        self.size = check_whole("part_size", size, 1)
        self.after = after or (lambda: None)


class ImageIndex(OldIndexNames, ABC):
    """Images of one root folder, embedded by one model.

    Args:
        root: Folder that the paths of the images are relative to.
        fingerprint: Of the model whose embeddings the index holds.
        config: ``{"extractor": {name, args}, "transforms": {name, args}}``: how to build the model again.
    """

    grid: int = 0  # n: beside each image, its n x n parts are embedded
    has_gallery: bool = True  # whether all embeddings are at hand, for postprocessors that need them

    @property
    def parts(self) -> Sequence[ImageIndex]:
        """The indexes that hold its images: itself, unless it is made of others."""
        return [self]

    def __init__(self, root: Path | str, fingerprint: Fingerprint, config: Mapping[str, Any] | None) -> None:
        self.root = Path(root).absolute()
        self.fingerprint = fingerprint
        self.config = None if config is None else plain(config)

    def add(
        self,
        source: Path | str | pd.DataFrame,
        embedder: Embedder,
        *,
        verbose: bool = False,
        part_size: int = PART_SIZE,
        after_part: Callable[[], None] | None = None,
    ) -> AddReport:
        """Embed and add the images that are new or have changed since (by size and time of the file, then content).

        With a folder, images of the index below it whose files are gone leave; a file that was renamed keeps its
        embedding and its label. A label that the source has for an image counts from now on; without one, that of the
        index stays.

        Args:
            source: A folder below the root, a dataframe of OML, or a part of what ``list_images`` returns.
            embedder: The model of the index.
            verbose: Show progress.
            part_size: Images between two writes to the store: what is lost at most when a long run is interrupted.
            after_part: Called after each of these writes but the last, e.g. to save an index in a folder.

        Returns:
            How many images were added, and which could not be read; these are left out.

        Raises:
            ValueError: Another model than the index's; no image could be read; or as ``list_images``.
        """
        return self._update(source, embedder, verbose, exactly=False, parts=_Parts(part_size, after_part))

    def sync(
        self,
        source: Path | str | pd.DataFrame,
        embedder: Embedder,
        *,
        verbose: bool = False,
        part_size: int = PART_SIZE,
        after_part: Callable[[], None] | None = None,
    ) -> AddReport:
        """Make the index hold exactly what ``source`` lists and can be read: as :meth:`add`, and all others leave.

        With a folder below the root, only what the index holds of that folder changes; with a dataframe, everything.
        Arguments, returns and errors as for :meth:`add`; after an error, nothing has left.
        """
        return self._update(source, embedder, verbose, exactly=True, parts=_Parts(part_size, after_part))

    def remove(self, paths: Path | str | Iterable[Path | str]) -> int:
        """Take images out by their paths, absolute or below the root, with all their boxes; the files stay.

        Returns:
            How many entries left.

        Raises:
            ValueError: An image is not in the index. Nothing is removed then.
        """
        given = [paths] if isinstance(paths, (str, Path)) else list(paths)
        wanted = [relative_to_root(path, self.root) for path in given]
        images = self.images
        present = set(images.path)
        for path in wanted:
            if path not in present:
                raise ValueError(unknown_name("image of the index", path, images.path[:_COMPARED_NAMES]))
        keys = images.key[images.path.isin(wanted)].tolist()
        self._drop(keys)
        return len(keys)

    @takes_descriptors
    def add_embeddings(
        self, source: Path | str | pd.DataFrame, embeddings: Embeddings, fingerprint: Fingerprint
    ) -> AddReport:
        """Add images whose embeddings are there already, e.g. from OML's prediction pipeline on several nodes.

        Args:
            source: The images, as for :meth:`add`.
            embeddings: One row per image, ``(n, dim)``, in the order of ``list_images(source, root)``.
            fingerprint: Of the model that made them.

        Raises:
            ValueError: Another model, another dimension or number of embeddings, or rows that are not finite.
        """
        self.check_model(fingerprint, "the embeddings")
        if self.grid:
            raise ValueError(
                f"The index has a grid of {self.grid} x {self.grid} parts, whose embeddings cannot be given: expected "
                f"images that it embeds itself, by add or sync."
            )
        images = list_images(source, self.root)
        rows = self._checked(embeddings)
        if len(rows) != len(images):
            raise ValueError(
                f"There are {counted(len(rows), 'embedding')} for {counted(len(images), 'image')}: expected one each."
            )
        known = self._stamps(images.key.tolist())
        self._store(images.assign(digest=""), rows.block(0, len(rows)))
        return AddReport(added=len(images) - len(known), changed=len(known))

    def search_images(
        self,
        paths: Path | str | Sequence[Path | str],
        embedder: Embedder,
        k: int = 10,
        *,
        search_params: str = "",
        **more: Any,
    ) -> list[list[Hit]]:
        """The ``k`` nearest images of the index for each image file, nearest first; a single path is one query.

        An image that is in the index finds itself, at distance 0. ``more`` are arguments of this index's
        :meth:`search`.

        Raises:
            ValueError: Another model than the index's, or an image cannot be read.
        """
        self.check_model(embedder.fingerprint, "the query")
        given = [paths] if isinstance(paths, (str, Path)) else paths
        return self.search(embedder.embed_all([Path(path) for path in given]), k, search_params=search_params, **more)

    def holds(self, path: str, box: str = "") -> bool:
        """Whether an image is in the index, by its path below the root, and its box."""
        key = key_of(path, box)
        return key in self._stamps([key])

    def check_model(self, fingerprint: Fingerprint, what: str) -> None:
        """Raise a ``ValueError`` if ``what`` comes from another model than the index."""
        self.fingerprint.check_same(fingerprint, "the index", what)

    def embedder(self, *, trust_weights: bool = False, **settings: Any) -> Embedder:
        """The model of the index, built again from the stored config.

        Args:
            trust_weights: Also read files of weights that can run code, such as pickles; only for an index, and files,
                of somebody that you trust.
            settings: As for :class:`Embedder`: ``batch_size``, ``num_workers``, ``device``.

        Raises:
            ValueError: No config was stored, it needs ``trust_weights``, or what it builds is no longer the same model.
        """
        if self.config is None:
            raise ValueError("The index holds no config of its model: build the Embedder yourself.")
        if not {"extractor", "transforms"} <= set(self.config):
            raise ValueError(
                f"The index holds the config {self.config!r:.200} of its model, expected extractor and transforms: "
                f"build the Embedder yourself."
            )
        if not trust_weights:
            check_runs_no_code(self.config)
        built = Embedder.from_config(self.config["extractor"], self.config["transforms"], **settings)
        self.check_model(built.fingerprint, "what its stored config builds today")
        return built

    def close(self) -> None:
        """Leave the server, if there is one; the index cannot be used afterwards."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def search(self, embeddings: Embeddings, k: int = 10, *, search_params: str = "") -> list[list[Hit]]:
        """The ``k`` nearest images for each embedding ``(n, dim)``, nearest first; fewer if the index is smaller."""

    def _reading(self) -> AbstractContextManager[None]:
        """Within the block nothing changes that :meth:`_searchable` has returned there."""
        return nullcontext()

    @abstractmethod
    def _searchable(self, settings: Settings, n_rows: int) -> Searchable:
        """What postprocessors search; of each query at most ``n_rows`` rows.

        Raises:
            ValueError: The index is empty, ``settings`` do not go with it, or it cannot find so many rows.
        """

    @property
    @abstractmethod
    def images(self) -> pd.DataFrame:
        """The images, with the columns of ``list_images`` and ``digest``, of the file's content."""

    @abstractmethod
    def _stamps(self, keys: list[str]) -> Mapping[str, Known]:
        """What is stored of those of ``keys`` that the index holds."""

    @abstractmethod
    def _embeddings_of(self, keys: list[str]) -> Floats:
        """Stored embeddings ``(len(keys), dim)``; the index holds all the keys."""

    @abstractmethod
    def _drop(self, keys: list[str]) -> None:
        """Take entries out; the index holds all the keys."""

    @abstractmethod
    def _store(self, images: pd.DataFrame, embeddings: Floats) -> None:
        """Add rows, or replace those whose key is there already."""

    def _update(
        self, source: Path | str | pd.DataFrame, embedder: Embedder, verbose: bool, *, exactly: bool, parts: _Parts
    ) -> AddReport:
        self.check_model(embedder.fingerprint, "the images")
        images = list_images(source, self.root)
        report = AddReport()
        if len(images) == 0 and not exactly:
            return report
        known = self._stamps(images.key.tolist())
        given = zip(images.key, images.label, strict=True)
        labels = [label or (known[key].label if key in known else "") for key, label in given]
        images = images.assign(label=np.array(labels, dtype=object))
        now = zip(images.key, images["size"], images.mtime_ns, images.label, strict=True)
        same = np.array([key in known and _is_as_known(known[key], *of_file) for key, *of_file in now], dtype=bool)
        report.unchanged = int(same.sum())
        left = self._left(source, images, exactly)
        todo = images[~same].reset_index(drop=True)
        taken_over = self._take_over(todo, known, left, report)
        todo = todo[~taken_over].reset_index(drop=True)
        if len(todo):
            report += self._embed_and_store(todo, embedder, verbose, parts)
        no_longer_read = [key for key, _ in report.broken if key in known]
        report.changed = sum(key in known for key in todo.key) - len(no_longer_read)
        report.added -= report.changed
        if len(images) and len(report.broken) == len(images):
            path, reason = report.broken[0]
            raise ValueError(f"None of the {counted(len(images), 'image')} can be used; the first, {path!r}: {reason}.")
        leaving = [*left.key, *(no_longer_read if exactly else [])]
        if leaving:
            self._drop(leaving)
        report.removed = len(leaving) - report.renamed
        return report

    def _left(self, source: Path | str | pd.DataFrame, images: pd.DataFrame, exactly: bool) -> pd.DataFrame:
        """What the index holds of the source, but is no longer listed there."""
        if isinstance(source, pd.DataFrame) and not exactly:
            return pd.DataFrame({column: [] for column in ("key", "path", "box", "label", "size", "digest")})
        held = self.images
        if isinstance(source, pd.DataFrame):
            return held[~held.key.isin(images.key)]
        below = folder_below_root(source, self.root) or ""
        listed = set(images.path)
        left = [
            path.startswith(below) and path not in listed and (exactly or is_gone(self.root / path))
            for path in held.path
        ]
        return held[np.array(left, dtype=bool)]

    def _take_over(
        self, todo: pd.DataFrame, known: Mapping[str, Known], left: pd.DataFrame, report: AddReport
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
        found = digests([self.root / todo.path[i] for i in maybe])
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
            self._store(self._with_regions(rows), self._embeddings_of(list(donors.values())))
        n_same = sum(todo.key[i] == donor for i, donor in donors.items())
        report.unchanged += n_same
        report.renamed = len(donors) - n_same
        return np.isin(np.arange(len(todo)), list(donors))

    def _embed_and_store(self, images: pd.DataFrame, embedder: Embedder, verbose: bool, parts: _Parts) -> AddReport:
        """In whatever order embeddings come (on a cluster: as blocks are finished), part by part."""
        images = self._with_regions(images)
        per_image = rows_per_image(self.grid)
        paths = [self.root / path for path in images.path for _ in range(per_image)]
        boxes = [box for row in images.itertuples() for box in self._boxes(row)]
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
                report.added += self._store_rows(images, whole, rows)
                parts.after()
        report.added += self._store_rows(images, whole, rows)
        report.broken = [(str(images.key[i]), reason) for i, reason in sorted(broken.items())]
        return report

    def _store_rows(self, images: pd.DataFrame, whole: list[int], rows: dict[int, dict[int, Floats]]) -> int:
        """Store these images, whose number it returns, and forget their rows."""
        whole.sort()
        if whole:
            embedded = images.iloc[whole].reset_index(drop=True)
            of_each = [rows.pop(image) for image in whole]
            embeddings = np.stack([np.concatenate([of_one[part] for part in sorted(of_one)]) for of_one in of_each])
            self._store(embedded.assign(digest=self._digests(embedded)), embeddings)
        n_stored = len(whole)
        whole.clear()
        return n_stored

    def _with_regions(self, images: pd.DataFrame) -> pd.DataFrame:
        """With a grid: whose parts are taken, the image or its box, as a box; empty if the file cannot be read."""
        if not self.grid:
            return images
        sizes = look_at_images(self.root, images.path.tolist(), verbose=False)
        regions = []
        for box, size in zip(images.box, sizes, strict=True):
            if isinstance(size, str):
                regions.append("")
            else:
                regions.append(box or f"0,0,{','.join(map(str, size[1::-1] if size.turned else size[:2]))}")
        return images.assign(region=np.array(regions, dtype=object))

    def _boxes(self, image: Any) -> list[Box | None]:
        """What is embedded of an image: itself, then its parts; itself in their place if it cannot be read."""
        region = parse_box(image.region) if self.grid else None
        parts = [None] * self.grid**2 if region is None else grid_boxes(region, self.grid)
        return [parse_box(image.box), *parts]

    def _digests(self, images: pd.DataFrame) -> list[str]:
        """Of the content that was embedded: empty for a file that has changed meanwhile."""
        paths = [self.root / path for path in images.path]
        stamps = zip(images["size"], images.mtime_ns, strict=True)
        found = zip(digests(paths), paths, stamps, strict=True)
        return [digest if stamp(path) == known else "" for digest, path, known in found]

    def _checked(self, embeddings: Embeddings, k: int = 1) -> Rows:
        if isinstance(embeddings, (np.ndarray, Tensor)) and embeddings.ndim == 1:
            embeddings = embeddings[None]
        rows = Rows(embeddings, name="embeddings")
        if rows.dim != self.fingerprint.width:
            raise ValueError(
                f"The embeddings have {counted(rows.dim, 'dimension')}, but those of the index have "
                f"{self.fingerprint.width}: they come from another model."
            )
        check_whole("k", k, 1)
        rows.check()
        return rows
