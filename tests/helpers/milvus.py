"""Tests that need milvus-lite."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_milvus = pytest.mark.skipif(
    not all(map(find_spec, ("milvus_lite", "pymilvus"))), reason="needs pip install 'oml-vit-ext[milvus]'"
)
