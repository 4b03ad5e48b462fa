"""What every index of images does, wherever it keeps its embeddings: add what is new, answer an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_list import list_images, parse_box
from oml_vit_ext.retrieval.index.model_config import check_runs_no_code
from oml_vit_ext.retrieval.old_names import OldIndexNames, takes_descriptors
from oml_vit_ext.retrieval.rows import Embeddings, Rows

_EMBEDDED_AT_ONCE = 16_384  # images between two writes to the store


class Hit(NamedTuple):
    """One retrieved image: its path below the root, the Euclidean distance, its label and box if it has them."""

    path: str
    distance: float
    label: str
    box: str


@dataclass
class AddReport:
    """What became of the images given to ``add``; reports can be summed."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)  # path, reason

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.broken + other.broken,
        )

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.changed} changed, {self.unchanged} unchanged, {len(self.broken)} broken"
        return "\n".join([counts, *(f"  broken: {path}: {reason}" for path, reason in self.broken)])


class ImageIndex(OldIndexNames, ABC):
    """Images of one root folder, embedded by one model.

    Args:
        root: Folder that the paths of the images are relative to.
        fingerprint: Of the model whose embeddings the index holds.
        config: ``{"extractor": {name, args}, "transforms": {name, args}}``: how to build the model again.
    """

    def __init__(self, root: Path | str, fingerprint: Fingerprint, config: Mapping[str, Any] | None) -> None:
        self.root = Path(root).absolute()
        self.fingerprint = fingerprint
        self.config = config

    def add(self, source: Path | str | pd.DataFrame, embedder: Embedder, *, verbose: bool = False) -> AddReport:
        """Embed and add the images that are new or have changed since (by size or time of the file).

        Args:
            source: A folder below the root, a dataframe of OML, or a part of what ``list_images`` returns.
            embedder: The model of the index.
            verbose: Show progress.

        Returns:
            How many images were added, and which could not be read; these are left out.

        Raises:
            ValueError: Another model than the index's; no image could be read; or as ``list_images``.
        """
        self.check_model(embedder.fingerprint, "the images")
        images = list_images(source, self.root)
        report = AddReport()
        if len(images) == 0:
            return report
        known = self._stamps(images.key.tolist())
        stamps = [known.get(key) for key in images.key]
        same = np.array(
            [old == now for old, now in zip(stamps, zip(images["size"], images.mtime_ns, strict=True), strict=True)]
        )
        report.unchanged = int(same.sum())
        todo = images[~same].reset_index(drop=True)
        for start in range(0, len(todo), _EMBEDDED_AT_ONCE):
            report += self._add_part(todo[start : start + _EMBEDDED_AT_ONCE].reset_index(drop=True), embedder, verbose)
        report.changed = sum(old is not None for old, s in zip(stamps, same, strict=True) if not s)
        report.changed -= sum(known.get(key) is not None for key, _ in report.broken)
        report.added -= report.changed
        if len(report.broken) == len(images):
            path, reason = report.broken[0]
            raise ValueError(f"None of the {len(images)} images can be used; the first, {path!r}: {reason}.")
        return report

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
        images = list_images(source, self.root)
        rows = self._checked(embeddings)
        if len(rows) != len(images):
            raise ValueError(f"There are {len(rows)} embeddings for {len(images)} images: expected one each.")
        known = self._stamps(images.key.tolist())
        self._store(images, rows.block(0, len(rows)))
        return AddReport(added=len(images) - len(known), changed=len(known))

    def search_images(
        self, paths: Sequence[Path | str], embedder: Embedder, k: int = 10, *, search_params: str = ""
    ) -> list[list[Hit]]:
        """The ``k`` nearest images of the index for each image file, nearest first.

        An image that is in the index finds itself, at distance 0.

        Raises:
            ValueError: Another model than the index's, or an image cannot be read.
        """
        self.check_model(embedder.fingerprint, "the query")
        return self.search(embedder.embed_all([Path(p) for p in paths]), k, search_params=search_params)

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
        if not trust_weights:
            check_runs_no_code(self.config)
        built = Embedder.from_config(self.config["extractor"], self.config["transforms"], **settings)
        self.check_model(built.fingerprint, "what its stored config builds today")
        return built

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def search(self, embeddings: Embeddings, k: int = 10, *, search_params: str = "") -> list[list[Hit]]:
        """The ``k`` nearest images for each embedding ``(n, dim)``, nearest first; fewer if the index is smaller."""

    @abstractmethod
    def _stamps(self, keys: list[str]) -> Mapping[str, tuple[int, int]]:
        """Size and time of the files, as stored, of those of ``keys`` that the index holds."""

    @abstractmethod
    def _store(self, images: pd.DataFrame, embeddings: Floats) -> None:
        """Add rows, or replace those whose key is there already."""

    def _add_part(self, images: pd.DataFrame, embedder: Embedder, verbose: bool) -> AddReport:
        report = AddReport()
        positions: list[int] = []
        parts: list[Floats] = []
        paths = [self.root / path for path in images.path]
        boxes = [parse_box(box) for box in images.box]
        for batch in embedder.embed(paths, boxes, verbose=verbose):
            positions.extend(batch.positions)
            parts.append(batch.embeddings)
            report.broken.extend((str(images.key[position]), reason) for position, reason in batch.broken)
        if positions:
            self._store(images.iloc[positions].reset_index(drop=True), np.concatenate(parts))
        report.added = len(positions)
        return report

    def _checked(self, embeddings: Embeddings, k: int = 1) -> Rows:
        if isinstance(embeddings, (np.ndarray, Tensor)) and embeddings.ndim == 1:
            embeddings = embeddings[None]
        rows = Rows(embeddings, name="embeddings")
        if rows.dim != self.fingerprint.width:
            raise ValueError(
                f"The embeddings have {rows.dim} dimensions, but those of the index have {self.fingerprint.width}: "
                f"they come from another model."
            )
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1.")
        rows.check()
        return rows
