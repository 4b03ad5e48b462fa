"""The indexes that an app offers, each loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oml_vit_ext.app.service import SearchService
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.retrieval import Embedder, ImageIndex, open_index


class Catalog:
    """Services by the names of their indexes.

    Args:
        services: Name -> service, at least one.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, services: dict[str, SearchService]) -> None:
        if not services:
            raise ValueError("There are no indexes, expected at least one.")
        self.services = services

    @classmethod
    def load(
        cls,
        places: Sequence[Path | str],
        *,
        reranker: Path | str | None = None,
        collection: str = "images",
        root: Path | str | None = None,
        search_params: str = "",
        device: str | None = None,
        trust_weights: bool = False,
    ) -> Catalog:
        """Load indexes and their models; indexes of one model share it.

        Args:
            places: As for ``open_index``: folders of indexes or of their shards, Milvus. The name of a folder or file
                is the name of its index, of a server its host.
            reranker: Folder of a re-ranker's run.
            collection: In Milvus.
            root: Where the images are now, if they have moved.
            search_params: Of approximate indexes: ``nprobe=16``, ``efSearch=64``, of Milvus ``ef=64``.
            device: ``None``: the GPU if there is one.
            trust_weights: See ``ImageIndex.embedder``.

        Raises:
            FileNotFoundError, ValueError, RuntimeError, ConnectionError, ImportError: An index, its model or the
                re-ranker cannot be loaded.
        """
        from oml_vit_ext.runs import read_run, run_reranker

        embedders: list[Embedder] = []
        postprocessor: Any = None
        transform: Any = None
        if reranker is not None:
            postprocessor, transform = run_reranker(read_run(reranker))
        services: dict[str, SearchService] = {}
        for place in places:
            index = open_index(place, collection=collection, root=root)
            embedder = next((e for e in embedders if _is_same(index, e)), None)
            if embedder is None:
                embedder = index.embedder(trust_weights=trust_weights, device=device)
                embedders.append(embedder)
            if postprocessor is not None:
                postprocessor.model.to(embedder.device)
            name = _name(str(place))
            name = str(place) if name in services else name
            services[name] = SearchService(index, embedder, postprocessor, transform, search_params=search_params)
        return cls(services)

    def __getitem__(self, name: str) -> SearchService:
        """The service of an index; the first one for an empty name.

        Raises:
            KeyError: There is none of this name; the sentence lists them.
        """
        if not name:
            return next(iter(self.services.values()))
        if name not in self.services:
            raise KeyError(unknown_name("index", name, self.services))
        return self.services[name]


def _is_same(index: ImageIndex, embedder: Embedder) -> bool:
    try:
        index.check_model(embedder.fingerprint, "the model of another index")
    except ValueError:
        return False
    return True


def _name(place: str) -> str:
    """Without what a URL may say about its user."""
    return urlsplit(place).netloc.rpartition("@")[2] if "://" in place else Path(place).name
