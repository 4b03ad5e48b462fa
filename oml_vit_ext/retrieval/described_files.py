"""The former place of what ``Embedder.embed_all`` does now, for scripts written for 0.1."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from oml_vit_ext.common.arrays import Box, Floats
from oml_vit_ext.retrieval.index.embedder import Embedder

warnings.warn(
    "oml_vit_ext.retrieval.described_files is now Embedder.embed_all; the old name will go with 1.0.",
    FutureWarning,
    stacklevel=2,
)


def describe_whole(
    embedder: Embedder, paths: Sequence[Path], boxes: Sequence[Box | None] | None = None, *, verbose: bool = False
) -> Floats:
    """As :meth:`Embedder.embed_all`."""
    return embedder.embed_all(paths, boxes, verbose=verbose)
