"""An index of images that people keep: embeddings, paths and the model's fingerprint in one folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.engines import Engine, FaissEngine, check_fillable, exact_engine
from oml_vit_ext.retrieval.first_dims import FirstDimsEngine, Shortlist
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.grid import check_grid, grid_boxes, nearest_part, rows_per_image
from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex, Searchable
from oml_vit_ext.retrieval.index.image_list import box_text, list_images, parse_box
from oml_vit_ext.retrieval.index.kept_faiss import KeptFaiss
from oml_vit_ext.retrieval.index.makers_mark import is_own, mark
from oml_vit_ext.retrieval.index.postprocessing import postprocessed
from oml_vit_ext.retrieval.index.readers_lock import ReadersLock
from oml_vit_ext.retrieval.index.storage import (
    MANIFEST,
    check_target,
    commit,
    is_committed,
    locked,
    manifest_of,
    read_state,
    verify_checksums,
    write_files,
)
from oml_vit_ext.retrieval.index.table import EmbeddingTable
from oml_vit_ext.retrieval.index.update import AddReport, Known
from oml_vit_ext.retrieval.old_names import takes_descriptors
from oml_vit_ext.retrieval.rows import Embeddings
from oml_vit_ext.retrieval.search_space import SearchesAgain, SearchSpace
from oml_vit_ext.retrieval.settings import EXACT, MEMORY_MB, Settings


class SearchIndex(ImageIndex):
    """Embeddings of images, searched exactly or through a faiss index, and kept in a folder.

    ``build`` or ``load`` one; ``add`` embeds only images that are new or changed; ``save`` writes what is new, so
    that a crash at any moment leaves the last saved state. The embeddings themselves are always kept (4 bytes per
    dimension): the approximate index can be made again from them, and found images get their true distances.

    Several threads may search, add, remove and save at once: each search is of one state, and changes wait for those
    that are running.

    Args:
        root: Folder that the paths of the images are relative to.
        fingerprint: Of the model.
        index: ``Flat`` (exact) or a faiss factory string, e.g. ``IVF1024,Flat``, ``HNSW32``, ``IVF4096,PQ48np``.
        config: ``{"extractor": {name, args}, "transforms": {name, args}}``: how to build the model again.
        grid: n: beside each image its n × n parts are embedded, and the nearest of them all counts: for small objects
            in large pictures. Embeddings, faiss index and the time of embedding and of exact search are 1 + n² times
            those without. 0: the whole images alone.

    Raises:
        ValueError: faiss does not know ``index``, or it does not go with the dimension; ``grid`` is no such number.

    Example:
        Three pictures in one colour each, embedded by their mean colour.

        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from torchvision.transforms import Compose, ToTensor
        >>> from oml_vit_ext.retrieval import Embedder
        >>> class MeanColour(torch.nn.Module):
        ...     def forward(self, images):  # (B, 3, H, W) -> (B, 3)
        ...         return images.mean(dim=(2, 3))
        >>> folder = tempfile.TemporaryDirectory()
        >>> photos = Path(folder.name, "photos")
        >>> photos.mkdir()
        >>> for name in ("red", "orange", "blue"):
        ...     Image.new("RGB", (8, 8), name).save(photos / f"{name}.png")
        >>> embedder = Embedder(MeanColour(), Compose([ToTensor()]), device="cpu")
        >>> index, report = SearchIndex.build(photos, embedder)
        >>> print(report)
        3 added, 0 changed, 0 unchanged, 0 broken
        >>> index.save(Path(folder.name, "index"))
        >>> index = SearchIndex.load(Path(folder.name, "index"))
        >>> [hits] = index.search_images([photos / "red.png"], embedder, k=2)
        >>> [(hit.path, round(hit.distance, 2)) for hit in hits]
        [('red.png', 0.0), ('orange.png', 0.65)]
        >>> folder.cleanup()
    """

    def __init__(
        self,
        root: Path | str,
        fingerprint: Fingerprint,
        index: str = EXACT,
        config: Mapping[str, Any] | None = None,
        *,
        grid: int = 0,
    ) -> None:
        super().__init__(root, fingerprint, config)
        check_fillable(fingerprint.width, index)  # a wrong string is told before images are embedded
        self.index = index
        self.grid = check_grid(grid)
        self._table = EmbeddingTable(rows_per_image(grid))
        self._faiss = KeptFaiss(index)
        self._lock = ReadersLock()
        self._kept: dict[Hashable, Any] = {}  # what postprocessors have computed of the gallery as it is
        self._first_dims: FirstDimsEngine | None = None
        self._folder: Path | None = None
        self._manifest: dict[str, Any] | None = None
        self._mapped = False

    @classmethod
    def build(
        cls,
        source: Path | str | pd.DataFrame,
        embedder: Embedder,
        *,
        root: Path | str | None = None,
        index: str = EXACT,
        grid: int = 0,
        verbose: bool = False,
    ) -> tuple[SearchIndex, AddReport]:
        """A new index of a folder, or of a dataframe with ``root``; errors as for ``add``."""
        if root is None:
            if isinstance(source, pd.DataFrame):
                raise ValueError("An index of a dataframe needs root, the folder that its paths are relative to.")
            root = source
        made = cls(root, embedder.fingerprint, index, embedder.config, grid=grid)
        images = list_images(source, made.root)
        check_fillable(embedder.fingerprint.width, index, len(images) * rows_per_image(grid))
        return made, made.add(images, embedder, verbose=verbose)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        root: Path | str | None = None,
        mmap: bool = False,
        trust_faiss_file: bool | None = None,
    ) -> SearchIndex:
        """Read an index, also one of somebody that you do not trust.

        Args:
            folder: Where ``save`` put it.
            root: Where the images are now, if they have moved.
            mmap: Leave embeddings and faiss index on disk, for indexes larger than memory. Such an index cannot be
                added to, and of its files only the sizes are checked, not the checksums.
            trust_faiss_file: Read the faiss index beside the embeddings. faiss's reader and search are not made for
                hostile files. ``None``: read it if it bears the mark that ``save`` puts on the files of this user,
                after a look at its checksum. Where the file is not read, the index is made again from the embeddings
                when it is needed, and the next ``save`` keeps that one.

        Warns:
            UserWarning: The faiss index is of another user, of another machine or of an earlier version.

        Raises:
            FileNotFoundError, ValueError: There is no index, or a file of it is missing, cut short or damaged.
        """
        folder = Path(folder).absolute()
        return read_state(folder, lambda manifest: cls._read(folder, manifest, root, mmap, trust_faiss_file))

    def save(self, folder: Path | str | None = None, *, finish: bool = True) -> None:
        """Write what is new since the last ``save`` or ``load``.

        Args:
            folder: Where to; by default where the index came from or was saved last.
            finish: Bring the approximate index up to date as well. Without, saving is cheap: for long runs that save
                as they go.

        Raises:
            FileExistsError: The folder holds another index, or other files.
            RuntimeError: Another process is writing it, or has written it since it was loaded.
            ValueError: There is nothing to save, no folder, or too few images to train the approximate index.
        """
        with self._lock.keeping():
            target = self._folder if folder is None else Path(folder).absolute()
            if target is None:
                raise ValueError("This index has not been saved before: name the folder to save it to.")
            if not len(self) and self._manifest is None:
                raise ValueError(f"There are no images to save in {str(target)!r}.")
            self._raise_if_mapped()
            if finish:
                self._bring_up_to_date()
            check_target(target, self._folder, self._manifest)  # before a lock is left in somebody's folder
            with locked(target), self._as_before_on_error() as before:
                check_target(target, self._folder, self._manifest)
                # Nothing of ours is there: write it all.
                if target != self._folder or not (target / MANIFEST).is_file():
                    self._folder, self._manifest = target, None
                    self._table.mark_saved([])
                    self._faiss.leave_folder()
                self._write(target, finish=finish, before=before)

    @property
    def images(self) -> pd.DataFrame:
        """The images, with the columns of ``list_images``, ``digest`` (of the file's content) and ``region`` (grid)."""
        return self._table.images

    @property
    def embeddings(self) -> Floats:
        """``(n, dim)``, row i of image i, of a grid those of whole images: of a large index that is a lot of memory."""
        with self._lock.reading():
            if not len(self):
                return np.empty((0, self.fingerprint.width), dtype=np.float32)
            rows = self._table.rows()
            return rows.block(0, len(rows))[:: self._table.per_image]

    def __len__(self) -> int:
        return len(self._table)

    @takes_descriptors
    def search(
        self,
        embeddings: Embeddings,
        k: int = 10,
        *,
        search_params: str = "",
        memory_mb: float = MEMORY_MB,
        postprocessor: SearchesAgain | None = None,
        first_dims: int | None = None,
        shortlist: int = 100,
    ) -> list[list[Hit]]:
        """As in :class:`ImageIndex`. What is found for a query does not depend on the other queries.

        Args:
            embeddings: ``(n, dim)``, of the queries.
            k: Images per query.
            search_params: Of an approximate index: ``nprobe=16``, ``efSearch=64``.
            memory_mb: Bound for temporary memory, in MB (1e6 bytes).
            postprocessor: ``QueryExpansion``, ``KReciprocalReranker`` or a ``PostprocessorChain`` of these. A gallery
                expanded once is kept until the index changes.
            first_dims: Find ``shortlist`` rows (``k``, if that is more) by this many first dimensions alone, and order
                them by all. For embeddings of the criterion ``matryoshka``, an index ``Flat`` and no postprocessor. The
                first dimensions are kept in memory until images are added or leave: 4 bytes each and row.
            shortlist: Of ``first_dims``.

        Raises:
            ValueError: Embeddings of another dimension, not finite or all zeros; ``k`` below 1; an empty index; wrong
                ``search_params``, ``memory_mb`` or ``shortlist``; a postprocessor that needs images; ``first_dims`` out
                of range, of an approximate index or beside a postprocessor.
        """
        settings = Settings(self.index, search_params, memory_mb)
        queries = self._checked(embeddings, k)
        if first_dims is not None and postprocessor is not None:
            raise ValueError(
                f"first_dims is {first_dims}, expected None beside a postprocessor: it compares whole embeddings."
            )
        with self._reading():
            self._raise_if_empty()
            if first_dims is None:
                engine = self._engine(settings)
            else:
                engine = self._short_engine(settings, first_dims, shortlist)
            space = SearchSpace(queries, self._table.rows(), [], settings, engine, self._kept)
            n_rows = k * self._table.per_image  # those hold the nearest part of k images
            found = space.search(n_rows) if postprocessor is None else postprocessed(space, n_rows, postprocessor)
            hit = self._hit_maker()
        hits = []
        for distances, rows in zip(*found, strict=True):
            first = nearest_part(rows.numpy(), self.grid, k)
            hits.append([hit(row, d) for row, d in zip(rows[first].tolist(), distances[first].tolist(), strict=True)])
        return hits

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Within the block nothing changes, and the approximate index holds all rows."""
        while True:
            with self._lock.reading():
                if self._is_up_to_date():
                    yield
                    return
            self._bring_up_to_date()

    def _is_up_to_date(self) -> bool:
        return self.index == EXACT or not len(self) or self._faiss.holds(len(self._table.rows()))

    def _bring_up_to_date(self) -> None:
        with self._lock.changing():
            if not self._is_up_to_date():
                self._faiss.up_to_date(self._table.rows())

    def _searchable(self, settings: Settings) -> Searchable:
        self._raise_if_empty()
        return Searchable(self._table.rows(), self._engine(replace(settings, index=self.index)), self._hit_maker())

    def _hit_maker(self) -> Callable[[int, float], Hit]:
        path, label, box, region = (self.images[column].to_numpy() for column in ("path", "label", "box", "region"))

        def hit(row: int, distance: float) -> Hit:
            i, part = divmod(row, self._table.per_image)
            return Hit(path[i], distance, label[i], box[i], _crop(region[i], self.grid, part))

        return hit

    def _raise_if_empty(self) -> None:
        if not len(self):
            raise ValueError("The index is empty: add images before searching.")

    def _stamps(self, keys: list[str]) -> dict[str, Known]:
        with self._lock.reading():
            return {key: Known(*stamp) for key, stamp in self._table.stamps(keys).items()}

    def _embeddings_of(self, keys: list[str]) -> Floats:
        with self._lock.reading():
            return self._table.embeddings_of(keys)

    def _drop(self, keys: list[str]) -> None:
        self._raise_if_mapped()
        with self._lock.changing():
            self._kept = {}
            if keys:
                self._table.drop(keys)
                self._faiss.forget()
                self._first_dims = None

    def _store(self, images: pd.DataFrame, embeddings: Floats) -> None:
        self._raise_if_mapped()
        with self._lock.changing():
            self._kept = {}
            self._first_dims = None
            try:
                has_changed = self._table.put(images, embeddings)
            except BaseException:
                self._faiss.forget()  # some of its rows may be others now
                raise
            if has_changed:
                self._faiss.forget()

    @classmethod
    def _read(
        cls, folder: Path, manifest: dict[str, Any], root: Path | str | None, mmap: bool, trust_faiss_file: bool | None
    ) -> SearchIndex:
        if not mmap:
            verify_checksums(folder, manifest["files"])
        try:
            model = Fingerprint.from_dict(manifest["model"])
            grid = manifest.get("grid", 0)
            loaded = cls(root or manifest["root"], model, manifest["index"], manifest["config"], grid=grid)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(folder / MANIFEST)!r} is no manifest of an index: {error}") from error
        if not manifest.get("finished", True):
            warnings.warn(
                f"The index {str(folder)!r} is half-finished: the run that makes it was interrupted, or is going on. "
                f"It holds {counted(manifest['n_images'], 'image')} so far; add the same images again, and save.",
                stacklevel=5,
            )
        if loaded.root != Path(manifest["root"]):
            loaded.moved_from = Path(manifest["root"])
        loaded._folder, loaded._manifest, loaded._mapped = folder, manifest, mmap
        dim = model.width
        parts, per_image = [(a, b) for a, b in manifest["parts"]], rows_per_image(grid)
        loaded._table = EmbeddingTable.read(folder, parts, dim=dim, mmap=mmap, per_image=per_image)
        if len(loaded) != manifest["n_images"]:
            raise ValueError(
                f"{str(folder / MANIFEST)!r} speaks of {counted(manifest['n_images'], 'image')}, expected "
                f"{len(loaded)} as in its "
                f"tables. Make the index again."
            )
        if _is_to_be_read(folder, manifest, mmap) if trust_faiss_file is None else trust_faiss_file:
            n_rows, n_trained = len(loaded) * per_image, manifest["n_trained"]
            loaded._faiss.read(folder, manifest["faiss_file"], n_trained=n_trained, n_rows=n_rows, dim=dim, mmap=mmap)
        return loaded

    def _engine(self, settings: Settings) -> Engine:
        if self.index == EXACT:
            return exact_engine(self._table.rows(), settings)
        return FaissEngine(self._faiss.up_to_date(self._table.rows()), settings.search_params, self.index)

    def _short_engine(self, settings: Settings, first_dims: int, shortlist: int) -> Engine:
        if self.index != EXACT or settings.search_params:
            raise ValueError(
                f"first_dims is {first_dims}, expected None for index {self.index!r} with search_params "
                f"{settings.search_params!r}: first dimensions are searched exactly, in an index {EXACT!r}."
            )
        engine = self._first_dims
        if engine is None or engine.first_dims != first_dims:
            engine = FirstDimsEngine(self._table.rows(), first_dims, settings.memory_mb / 2)
            self._first_dims = engine
        return Shortlist(engine, shortlist)

    def _write(self, target: Path, *, finish: bool, before: dict[str, Any]) -> None:
        """Commit the parts that are new or rewritten, and the faiss index if it is new; the folder is locked.

        Args:
            target: The folder.
            finish: See ``save``.
            before: What the index goes back to on an error; emptied once the new state is in the folder.
        """
        there: dict[str, Any] = self._manifest or {"generation": 0, "files": {}}
        generation = there["generation"] + 1
        self._table.join_new_parts()
        files, new = self._table.files_to_write(generation)
        faiss_file = self._faiss.file
        if finish and self._faiss.is_new:
            faiss_file = f"faiss-{generation:06d}.index"
            new[faiss_file] = self._faiss.write
        content = {
            "generation": generation,
            "root": str(self.root),
            "index": self.index,
            "grid": self.grid,
            "n_images": len(self),
            "finished": finish,
            "n_trained": self._faiss.n_trained,
            "config": self.config,
            "model": self.fingerprint.to_dict(),
            "parts": [list(names) for names in files],
            "faiss_file": faiss_file,
        }
        used = {*chain(*files), faiss_file}
        entries = {name: entry for name, entry in there["files"].items() if name in used}
        entries |= write_files(target, new)
        if faiss_file:
            content["faiss_mark"] = _mark(entries[faiss_file]["checksum"])
        manifest = manifest_of(content, entries)
        try:
            commit(target, manifest)
        finally:
            if is_committed(target, manifest):  # an interruption may come after that
                before.clear()
                self._manifest = manifest
                self._table.mark_saved(files)
                self._faiss.file = faiss_file
                self._faiss.is_new = self._faiss.is_new and not finish

    @contextmanager
    def _as_before_on_error(self) -> Iterator[dict[str, Any]]:
        """A save that fails leaves the index as it was: it can be saved to where it came from."""
        before = {name: getattr(self, name) for name in ("_folder", "_manifest")}
        before |= {"_table": copy(self._table), "_faiss": copy(self._faiss)}
        try:
            yield before
        except BaseException:
            vars(self).update(before)
            raise

    def _raise_if_mapped(self) -> None:
        if self._mapped:
            raise ValueError("The index was loaded with mmap=True and cannot be changed: load it without.")


def _is_to_be_read(folder: Path, manifest: Mapping[str, Any], mmap: bool) -> bool:
    """Whether the faiss index is one that this user has made."""
    name = manifest["faiss_file"]
    if not name:
        return False
    entry = manifest["files"][name]
    if not is_own(manifest.get("faiss_mark", ""), entry["checksum"]):
        warnings.warn(
            f"The faiss index of {str(folder)!r} does not bear your mark: it is of another user, another machine or an "
            f"earlier version, and is made again from the embeddings when it is needed. To have it read, if you trust "
            f"its maker: trust_faiss_file=True (--trust-faiss-file); save() then marks it as yours.",
            stacklevel=6,
        )
        return False
    if mmap:  # else all checksums have been compared
        verify_checksums(folder, {name: entry})
    return True


def _mark(checksum: str) -> str:
    try:
        return mark(checksum)
    except OSError as error:
        warnings.warn(
            f"The faiss index is saved without your mark ({error}), so that loading it makes it again from the "
            f"embeddings, unless with trust_faiss_file=True.",
            stacklevel=5,
        )
        return ""


def _crop(region: str, grid: int, part: int) -> str:
    """The box of a part, of 0: the whole, to n²; empty for the whole."""
    box = parse_box(region) if part else None
    return box_text(None if box is None else grid_boxes(box, grid)[part - 1])
