"""Tokens of a re-ranker beside an index: who encodes them, and where a query finds them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.reranking import TokenStore
from oml_vit_ext.reranking.token_files import PRECISIONS
from oml_vit_ext.retrieval.index import is_milvus
from oml_vit_ext.retrieval.index.milvus_client import is_url

ENDING = ".tokens"


def token_folder(place: str) -> Path:
    """Beside the index: ``photo_index.tokens``.

    Raises:
        ValueError: The index is on a server.
    """
    if is_milvus(place) and is_url(place):
        raise ValueError(f"Tokens lie beside an index, expected one in a folder or a file, not on a server: {place!r}.")
    path = Path(place).absolute()
    return path.with_name(f"{path.name}{ENDING}")


@dataclass(frozen=True)
class KeptTokens:
    """Those of several indexes, for ``rerank_hits``: each image's file is that of the first store that has one."""

    stores: Sequence[TokenStore]

    @property
    def model(self) -> Any:
        return self.stores[0].model

    @property
    def transform(self) -> Any:
        return self.stores[0].transform

    def files(self, paths: Sequence[Path], boxes: Sequence[Box | None]) -> list[Path | None]:
        of_stores = [store.files(paths, boxes) for store in self.stores]
        return [next(filter(None, files), None) for files in zip(*of_stores, strict=True)]


def tokens_beside(places: Sequence[str], model: Any, transform: Any) -> KeptTokens | None:
    """What ``index --tokens`` kept of this model beside these indexes; ``None`` if there is nothing.

    Warns:
        UserWarning: There are tokens, but of another model or other transforms.
    """
    folders = [token_folder(place) for place in places if not is_url(place)]
    stores = []
    for folder in filter(Path.is_dir, folders):
        found = [TokenStore(folder, model, transform, precision=precision) for precision in PRECISIONS]
        mine = [store for store in found if store.is_there]
        if not mine:
            warnings.warn(
                f"{folder} holds the tokens of another re-ranker: candidates are decoded. To encode them for this one: "
                f"index --tokens half --reranker CONFIG.",
                stacklevel=2,
            )
        stores += mine
    return KeptTokens(stores) if stores else None
