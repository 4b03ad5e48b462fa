"""Names of earlier versions, which still work: an embedding was called *descriptor*, to embed was to *describe*.

=============================================  ===========================================
old                                            now
=============================================  ===========================================
``Embedder.describe``, ``.describe_all``       ``Embedder.embed``, ``.embed_all``
``.descriptors`` of what ``embed`` yields      ``.embeddings``
``add_descriptors`` of an index                ``add_embeddings``
``descriptors=`` of ``search``,                ``embeddings=``
``add_embeddings`` and ``search_shards``
=============================================  ===========================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def takes_descriptors(function: Callable[P, T]) -> Callable[P, T]:
    """Let the keyword ``descriptors`` stand for ``embeddings``."""

    @wraps(function)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> T:
        if "descriptors" in kwargs and "embeddings" not in kwargs:
            kwargs["embeddings"] = kwargs.pop("descriptors")
        return function(*args, **kwargs)

    return renamed


class OldEmbedderNames:
    def describe(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.embed(*args, **kwargs)

    def describe_all(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.embed_all(*args, **kwargs)


class OldBatchNames:
    @property
    def descriptors(self: Any) -> Any:
        return self.embeddings


class OldIndexNames:
    def add_descriptors(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.add_embeddings(*args, **kwargs)
