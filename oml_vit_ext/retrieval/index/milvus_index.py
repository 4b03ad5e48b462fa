"""The index of images in Milvus: in a file through milvus-lite, or on a cluster."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex, Searchable
from oml_vit_ext.retrieval.index.image_list import key_of
from oml_vit_ext.retrieval.index.milvus_candidates import MilvusCandidates
from oml_vit_ext.retrieval.index.milvus_client import PatientClient, import_pymilvus, is_url
from oml_vit_ext.retrieval.index.model_config import plain
from oml_vit_ext.retrieval.index.postprocessing import postprocessed_hits
from oml_vit_ext.retrieval.index.table import LEADS_OUT, STORED
from oml_vit_ext.retrieval.index.update import AddReport, Known
from oml_vit_ext.retrieval.old_names import takes_descriptors
from oml_vit_ext.retrieval.rows import Embeddings
from oml_vit_ext.retrieval.search_params import parse_search_params
from oml_vit_ext.retrieval.search_space import SearchesAgain
from oml_vit_ext.retrieval.settings import MEMORY_MB, Settings

_MESSAGE_BYTES = 4_000_000  # a message to the server may have 64 MB
_LONGEST_TEXT = 65_535  # bytes; Milvus' own limit for VARCHAR
_MOST_HITS = 16_384  # Milvus' own limit for one query
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_TEXTS = ("path", "label", "box")
# Names of files may hold bytes that are no UTF-8, which Python keeps as surrogates and Milvus refuses: it gets
# characters for private use instead.
_TO_MILVUS = {0xDC00 + byte: 0xF700 + byte for byte in range(128, 256)}
_FROM_MILVUS = {there: here for here, there in _TO_MILVUS.items()}


class MilvusIndex(ImageIndex):
    """Images and embeddings in a collection of Milvus: more than one machine holds, or many people query.

    ``add``, ``search`` and ``search_images`` are those of :class:`~oml_vit_ext.retrieval.SearchIndex`; what is added is
    stored at once. Beside the collection stands a second one, ``<collection>_model``, with the model's fingerprint,
    and whether the last ``add`` or ``sync`` came to its end.

    Use :meth:`create` or :meth:`open`.
    """

    has_gallery = False

    def __init__(
        self,
        client: Any,
        collection: str,
        root: Path | str,
        fingerprint: Fingerprint,
        config: Mapping[str, Any] | None,
        info: Mapping[str, Any],
    ) -> None:
        super().__init__(root, fingerprint, config)
        self.collection = collection
        self._info = dict(info)
        if self.root != Path(info["root"]):
            self.moved_from = Path(info["root"])
        self._is_updating = False
        self._client = client
        self._n_stored = 0  # acknowledged by the server
        client.load_collection(collection)
        fields = {field["name"] for field in client.describe_collection(collection)["fields"]}
        self._columns = [*_TEXTS, "size", "mtime_ns", *({"digest"} & fields)]  # earlier versions had no digest

    @classmethod
    def create(
        cls,
        uri: str,
        root: Path | str,
        fingerprint: Fingerprint,
        *,
        collection: str = "images",
        config: Mapping[str, Any] | None = None,
        index: str = "AUTOINDEX",
        index_params: Mapping[str, Any] | None = None,
        token: str | None = None,
        patience: float = 60.0,
    ) -> MilvusIndex:
        """A new, empty collection.

        Args:
            uri: A file name ending in ``.db`` (milvus-lite, in this process) or the URL of a cluster.
            root: Folder that the paths of the images are relative to.
            fingerprint, config: Of the model, e.g. ``embedder.fingerprint`` and ``embedder.config``.
            collection: Its name: letters, digits and underscores.
            index: ``FLAT`` (exact), ``HNSW``, ``IVF_FLAT``, ``IVF_PQ``, ... as Milvus names them. milvus-lite
                chooses for itself.
            index_params: Of the index, e.g. ``{"M": 32, "efConstruction": 200}`` for HNSW.
            token: ``user:password`` or an API key of a cluster; ``None``: ``MILVUS_TOKEN`` in the environment.
            patience: Seconds for which a cluster that does not answer is asked again, here and in all methods.

        Raises:
            ImportError: The extra ``milvus`` is not installed.
            ConnectionError: The cluster has not answered for ``patience`` seconds; any method can raise it. What was
                added before is in.
            RuntimeError: The file cannot be opened, or Milvus refuses the collection.
            ValueError: ``collection`` is no such name.
            FileExistsError: There is such a collection, or ``uri`` is a folder with other files.
        """
        _check_collection(collection)
        _check_place(uri)
        client, milvus = PatientClient(uri, token, patience), import_pymilvus()
        if client.has_collection(collection):
            client.close()
            raise FileExistsError(
                f"Milvus at {uri!r} has a collection {collection!r} already: open it, or choose another name."
            )
        text = milvus.DataType.VARCHAR
        try:
            images = _schema(client, milvus, fingerprint.width)
            for name in _TEXTS:
                images.add_field(name, text, max_length=_LONGEST_TEXT)
            images.add_field("digest", text, max_length=64)
            for name in ("size", "mtime_ns"):
                images.add_field(name, milvus.DataType.INT64)
            model = _schema(client, milvus, fingerprint.width)
            model.add_field("info", text, max_length=_LONGEST_TEXT)
            known = fingerprint.to_dict()
            known.pop("probe")  # it is the embedding of that row
            kept = None if config is None else plain(config)
            info = {"root": str(Path(root).absolute()), "config": kept, "model": known}
            _create_collection(client, f"{collection}_model", model, "FLAT", {})
            client.upsert(f"{collection}_model", [_model_row(fingerprint, info)])
            _create_collection(client, collection, images, index, dict(index_params or {}))
        except milvus.MilvusException as error:
            for name in (collection, f"{collection}_model"):  # nothing half-made stays in the way of the next attempt
                client.drop_collection(name)
            client.close()
            raise RuntimeError(f"Milvus at {uri!r} refuses the collection {collection!r}: {error.message}.") from error
        return cls(client, collection, root, fingerprint, config, info)

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        collection: str = "images",
        root: Path | str | None = None,
        token: str | None = None,
        patience: float = 60.0,
    ) -> MilvusIndex:
        """A collection that :meth:`create` made; ``root`` says where the images are now, if they have moved.

        Raises:
            ImportError, ConnectionError, RuntimeError, ValueError: As for :meth:`create`.
            FileNotFoundError: There is no such file or collection.
        """
        _check_collection(collection)
        if not is_url(uri) and not Path(uri).exists():
            raise FileNotFoundError(f"There is no milvus-lite file {uri!r}.")
        client = PatientClient(uri, token, patience)
        if not (client.has_collection(collection) and client.has_collection(f"{collection}_model")):
            present = [name for name in client.list_collections() if f"{name}_model" in client.list_collections()]
            client.close()
            raise FileNotFoundError(f"Milvus at {uri!r}: {unknown_name('collection', collection, present)}")
        client.load_collection(f"{collection}_model")
        rows = client.get(f"{collection}_model", ids=["model"], output_fields=["info", "descriptor"])
        try:
            info, fingerprint = _stored_model(rows[0] if rows else {}, f"The collection {collection!r} at {uri!r}")
        except ValueError:
            client.close()
            raise
        index = cls(client, collection, root or info["root"], fingerprint, info["config"], info)
        if not info.get("finished", True):
            warnings.warn(
                f"The index {collection!r} is half-finished: the run that fills it was interrupted, or is going on. "
                f"It holds {counted(len(index), 'image')} so far; add the same images again.",
                stacklevel=2,
            )
        return index

    def close(self) -> None:
        """Leave the server; a milvus-lite file can then be opened by another process."""
        self._client.close()

    def __len__(self) -> int:
        return int(self._client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    @takes_descriptors
    def search(
        self,
        embeddings: Embeddings,
        k: int = 10,
        *,
        search_params: str = "",
        memory_mb: float = MEMORY_MB,
        postprocessor: SearchesAgain | None = None,
    ) -> list[list[Hit]]:
        """As in :class:`ImageIndex`; ``search_params`` as Milvus names them: ``nprobe=16``, ``ef=64``.

        Args:
            embeddings: ``(n, dim)``, of the queries.
            k: Images per query.
            search_params: Of the collection's index.
            memory_mb: Bound for the embeddings of a postprocessor's candidates, in MB (1e6 bytes).
            postprocessor: One that needs the embeddings of what was found alone, which come with the hits:
                ``QueryExpansion`` without ``database_side``, ``KReciprocalReranker`` with ``top_n``, or a chain of
                these.

        Raises:
            ValueError: Embeddings of another dimension, not finite or all zeros; ``k`` below 1; more than 16 384 hits
                for one query; an empty index; a postprocessor that needs images, or the whole gallery.
        """
        queries = self._checked(embeddings, k)
        if postprocessor is not None:
            settings = Settings(search_params=search_params, memory_mb=memory_mb)
            return postprocessed_hits([self], queries, k, settings, postprocessor)
        hits = [
            # Milvus' L2 is the squared distance.
            [Hit(distance=max(0.0, f["distance"]) ** 0.5, **_texts(f["entity"])) for f in found]
            for _, rows in queries.blocks(self._rows_per_message())
            for found in self._ask(rows, k, search_params, _TEXTS)
        ]
        if not any(hits):
            self._raise_if_empty()
        return hits

    def _ask(self, rows: Floats, k: int, search_params: str, fields: Sequence[str]) -> Any:
        if k > _MOST_HITS:
            raise ValueError(f"k is {k}, expected at most {_MOST_HITS}: Milvus returns no more for one query.")
        params = {"metric_type": "L2", "params": parse_search_params(search_params)}
        return self._client.search(
            self.collection, data=rows.tolist(), limit=k, output_fields=list(fields), search_params=params
        )

    def _searchable(self, settings: Settings) -> Searchable:
        self._raise_if_empty()
        fields = (*_TEXTS, "key", "descriptor")

        def ask(queries: Floats, k: int) -> Iterator[list[Mapping[str, Any]]]:
            at_once = max(1, self._rows_per_message() // k)
            for start in range(0, len(queries), at_once):
                for hits in self._ask(queries[start : start + at_once], k, settings.search_params, fields):
                    yield [{**hit["entity"], "distance": hit["distance"]} for hit in hits]

        rows = MilvusCandidates(ask, len(self), self.fingerprint.width)
        return Searchable(rows, rows, lambda row, distance: Hit(distance=distance, **_texts(rows.found[row])))

    def _raise_if_empty(self) -> None:
        if not len(self):
            raise ValueError("The index is empty: add images before searching.")

    @property
    def images(self) -> pd.DataFrame:
        """The images, with the columns of ``list_images`` and ``digest``, of the content: all rows are read."""
        table = pd.DataFrame(self._client.patiently(self._read_rows), columns=STORED, dtype=object)
        return table.astype({"size": np.int64, "mtime_ns": np.int64}).sort_values("key", ignore_index=True)

    def _read_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        found = self._client.query_iterator(self.collection, batch_size=1_000, output_fields=self._columns)
        while batch := found.next():
            rows.extend(self._row(row) for row in batch)
        found.close()
        return rows

    def _stamps(self, keys: list[str]) -> dict[str, Known]:
        found = {}
        for ids in _batches([_identifier(key) for key in keys], 1_000):
            for row in map(self._row, self._client.get(self.collection, ids=ids, output_fields=self._columns)):
                found[row["key"]] = Known(row["size"], row["mtime_ns"], row["digest"], row["label"])
        return found

    def _embeddings_of(self, keys: list[str]) -> Floats:
        by_id: dict[str, Any] = {}
        for ids in _batches([_identifier(key) for key in keys], self._rows_per_message()):
            for row in self._client.get(self.collection, ids=ids, output_fields=["descriptor"]):
                by_id[row["key"]] = row["descriptor"]
        return np.array([by_id[_identifier(key)] for key in keys], dtype=np.float32)

    def _update(self, *args: Any, exactly: bool, **kwargs: Any) -> AddReport:
        self._is_updating = True
        try:
            report = super()._update(*args, exactly=exactly, **kwargs)
        finally:
            self._is_updating = False
        # Who only adds or asks may have the images at a place of one's own.
        self._tell(finished=True, root=str(self.root) if exactly else self._info["root"])
        return report

    def _tell(self, **news: Any) -> None:
        """Only where it changes something: many updates change no image."""
        info = {**self._info, **news}
        if info != {"finished": True, **self._info}:
            self._client.upsert(f"{self.collection}_model", [_model_row(self.fingerprint, info)])
            self._info = info

    def _drop(self, keys: list[str]) -> None:
        if keys and self._is_updating:
            self._tell(finished=False)
        for ids in _batches([_identifier(key) for key in keys], 1_000):
            self._client.delete(self.collection, ids=ids)

    def _store(self, images: pd.DataFrame, embeddings: Floats) -> None:
        if self._is_updating:
            self._tell(finished=False)
        records = images[self._columns].to_dict("records")
        for number, key in enumerate(images.key):
            texts = {name: records[number][name].translate(_TO_MILVUS) for name in _TEXTS}
            records[number].update(key=_identifier(key), **texts)
        for positions in _batches(list(range(len(records))), self._rows_per_message()):
            rows = [{**records[i], "descriptor": embeddings[i].tolist()} for i in positions]
            try:
                self._client.upsert(self.collection, rows)
            except ConnectionError as error:
                raise ConnectionError(
                    f"{error} {counted(self._n_stored, 'image that was added is', 'images that were added are')} in; "
                    f"the same call goes on from there."
                ) from error
            self._n_stored += len(rows)

    def _row(self, entity: Mapping[str, Any]) -> dict[str, Any]:
        """What was stored, in the columns of ``list_images``."""
        texts = _texts(entity)
        key = key_of(texts["path"], texts["box"])
        stamp = {"size": int(entity["size"]), "mtime_ns": int(entity["mtime_ns"])}
        return {"key": key, **texts, **stamp, "digest": entity.get("digest", "")}

    def _rows_per_message(self) -> int:
        return max(1, _MESSAGE_BYTES // (4 * self.fingerprint.width))


def _check_collection(name: object) -> None:
    if not isinstance(name, str) or not _COLLECTION.fullmatch(name):
        raise ValueError(
            f"collection is {name!r:.80}, expected a name of letters, digits and underscores that begins with no digit."
        )


def _check_place(uri: object) -> None:
    """milvus-lite from version 3 on makes a folder of that name, or fills the one that is there."""
    folder = Path(str(uri))
    if not is_url(str(uri)) and folder.is_dir() and any(folder.iterdir()) and not (folder / "collections").is_dir():
        raise FileExistsError(
            f"The folder {str(uri)!r} is no index of milvus-lite and holds other files: choose another."
        )


def _schema(client: Any, milvus: Any, width: int) -> Any:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", milvus.DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("descriptor", milvus.DataType.FLOAT_VECTOR, dim=width)
    return schema


def _model_row(fingerprint: Fingerprint, info: Mapping[str, Any]) -> dict[str, Any]:
    """The one row of the collection beside: its embedding is the fingerprint's."""
    return {"key": "model", "descriptor": list(fingerprint.probe), "info": json.dumps(info)}


def _create_collection(client: Any, name: str, schema: Any, index: str, params: dict[str, Any]) -> None:
    index_params = client.prepare_index_params()
    index_params.add_index(field_name="descriptor", index_type=index, metric_type="L2", params=params)
    # Strong: what was added is found by the next search.
    client.create_collection(name, schema=schema, index_params=index_params, consistency_level="Strong")


def _identifier(key: str) -> str:
    """A primary key of hex digits: Milvus does not escape quotes in keys that it looks up."""
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _texts(entity: Mapping[str, Any]) -> dict[str, str]:
    """What a row says of its image.

    Raises:
        ValueError: The image would lie outside of the root: a file of milvus-lite may be somebody else's.
    """
    texts = {name: str(entity[name]).translate(_FROM_MILVUS) for name in _TEXTS}
    if re.search(LEADS_OUT, texts["path"]):
        raise ValueError(f"The index in Milvus holds the image {texts['path']!r:.200}, expected a path below its root.")
    return texts


def _stored_model(row: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Fingerprint]:
    """What the collection beside the images says: root, config, state, and the model's fingerprint.

    Raises:
        ValueError: It says something else.
    """
    try:
        info = json.loads(row["info"])
        fingerprint = Fingerprint.from_dict({**info["model"], "probe": map(float, row["descriptor"])})
        if not isinstance(info["root"], str) or not isinstance(info["config"], (dict, type(None))):
            raise TypeError("root is no text, or config no mapping")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} does not say which model it is of ({type(error).__name__}: {error}).") from error
    return info, fingerprint


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
