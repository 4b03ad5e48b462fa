"""The former place of the embeddings of whole images."""

from __future__ import annotations

import importlib
import sys

import pytest


class _Embedder:
    def embed_all(self, *args: object, **more: object) -> tuple[object, ...]:
        return args, more


def test_the_old_name_does_what_the_new_one_does_and_says_so():
    sys.modules.pop("oml_vit_ext.retrieval.described_files", None)
    with pytest.warns(FutureWarning, match=r"is now Embedder\.embed_all"):
        old = importlib.import_module("oml_vit_ext.retrieval.described_files")
    assert old.describe_whole(_Embedder(), ["a.jpg"], [(0, 0, 2, 2)]) == (
        (["a.jpg"], [(0, 0, 2, 2)]),
        {"verbose": False},
    )
