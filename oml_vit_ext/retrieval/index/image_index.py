"""What every index of images does, wherever it keeps its embeddings: add what is new, answer an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.retrieval.engines import Engine
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_list import key_of, list_images, relative_to_root
from oml_vit_ext.retrieval.index.model_config import check_runs_no_code, plain
from oml_vit_ext.retrieval.index.update import AddReport, Known, Parts, update
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

    def seen_from(self, base: Path, root: Path) -> Hit:
        """With a path that leads there from ``base``, of a hit below ``root``: the whole path where these are two."""
        return self if root == base else self._replace(path=(root / self.path).as_posix())


class Searchable(NamedTuple):
    """The embeddings of an index, what finds rows of them, and what a row that was found shows of its image."""

    rows: Rows
    engine: Engine
    hit: Callable[[int, float], Hit]  # of a row and its distance


class ImageIndex(OldIndexNames, ABC):
    """Images of one root folder, embedded by one model.

    Args:
        root: Folder that the paths of the images are relative to.
        fingerprint: Of the model whose embeddings the index holds.
        config: ``{"extractor": {name, args}, "transforms": {name, args}}``: how to build the model again.
    """

    moved_from: Path | None = None  # the root that it was made for, until images are found below another one
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
            ValueError: Another model than the index's; no image could be read; the index was opened with another root,
                and not one of its images would stay; or as ``list_images``.
        """
        return self._update(source, embedder, verbose, exactly=False, parts=Parts(part_size, after_part))

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
        return self._update(source, embedder, verbose, exactly=True, parts=Parts(part_size, after_part))

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
                f"{counted(len(rows), 'embedding is', 'embeddings are')} given for {counted(len(images), 'image')}: "
                f"expected one each."
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
    def _searchable(self, settings: Settings) -> Searchable:
        """What postprocessors search.

        Raises:
            ValueError: The index is empty, or ``settings`` do not go with it.
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
        self, source: Path | str | pd.DataFrame, embedder: Embedder, verbose: bool, *, exactly: bool, parts: Parts
    ) -> AddReport:
        return update(self, source, embedder, verbose, exactly=exactly, parts=parts)

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
