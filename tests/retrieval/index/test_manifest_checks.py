"""What is refused in the files of an index, each time with the name of the file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pytest

from helpers.random_index import DIM, random_index, random_rows
from oml_vit_ext.retrieval import SearchIndex
from oml_vit_ext.retrieval.index.storage import MANIFEST

N = 40


def checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest; sizes and checksums fit what is in the folder, as whoever wants to do harm would see to."""
    content = json.loads((folder / MANIFEST).read_text())["content"]
    for name, entry in content["files"].items():
        entry.update(size=(folder / name).stat().st_size, checksum=checksum((folder / name).read_bytes()))
    changed = change(content)
    content = content if changed is None else changed
    envelope = {"content": content, "checksum": checksum(json.dumps(content, sort_keys=True).encode())}
    (folder / MANIFEST).write_text(json.dumps(envelope))


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    random_index(tmp_path, "HNSW8", N).save(tmp_path / "index")
    assert len(SearchIndex.load(tmp_path / "index")) == N
    return tmp_path / "index"


def refused(folder: Path, name: str, **how: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(name)):
        SearchIndex.load(folder, **how)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [],
        lambda c: "text",
        lambda c: {"format": 1},
        lambda c: {"format": [1]},
        *[
            lambda c, name=name, value=value: c.update({name: value})
            for name, value in [
                ("generation", "1"),
                ("n_images", -1),
                ("n_images", 10**9),
                ("n_trained", 0.5),
                ("grid", 1),
                ("grid", 1_000),
                ("grid", "2"),
                ("root", 7),
                ("root", ""),
                ("root", "a\0b"),
                ("index", None),
                ("index", "IVF999999999"),
                ("index", "IVF1000000000,Flat"),
                ("index", "HNSW0"),
                ("config", "text"),
                ("model", []),
                ("model", {}),
                ("model", {"model": "m", "weights": "w", "transforms": "t", "probe": [float("nan")]}),
                ("model", {"model": "m", "weights": "w", "transforms": "t", "probe": 3}),
                ("files", []),
                ("files", {"../../x.csv": {"size": 1, "checksum": ""}}),
                ("files", {"/etc/passwd": {"size": 1, "checksum": ""}}),
                ("files", {"images-000001-000000.csv": 3}),
                ("files", {"images-000001-000000.csv": {"size": "a", "checksum": ""}}),
                ("parts", []),
                ("parts", 4),
                ("parts", [["a"]]),
                ("parts", [["../x.csv", "/etc/passwd"]]),
                ("parts", [[["a"], {}]]),
                ("faiss_file", "../faiss-000001.index"),
                ("faiss_file", 3),
            ]
        ],
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_odd_manifests(folder: Path, change: Callable[[dict[str, Any]], Any], mmap: bool) -> None:
    rewrite(folder, change)
    refused(folder, MANIFEST, mmap=mmap)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"content": ' * 5_000, "\udcff", "", "null", "[]", '{"content": 1}'])
def test_manifests_that_are_no_manifest(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, errors="surrogateescape")
    refused(folder, MANIFEST)


def _rows(**changes: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        for column, value in changes.items():
            table.loc[3, column] = value
        return table

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[:-1],
        lambda table: pd.concat([table, table[:1].assign(key="new")]),
        lambda table: table.drop(columns="box"),
        _rows(path="../../etc/passwd"),
        _rows(path="/etc/passwd"),
        _rows(path="a/../../b.png"),
        _rows(path=""),
        _rows(box="1,2,3"),
        _rows(box="1,2,3,1e9"),
        _rows(region="1,2"),
        _rows(size="many"),
        _rows(size="9" * 30),
        _rows(key="000000.png"),
        _rows(key="000000.png", path="000000.png"),
        _rows(key="../../../home/somebody/photo.png"),
        _rows(box="1,2,3,4"),
    ],
)
def test_odd_tables_of_images(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    (file,) = folder.glob("images-*")
    change(pd.read_csv(file, dtype=object, keep_default_na=False)).to_csv(file, index=False)
    rewrite(folder, lambda content: None)
    for mmap in (False, True):
        refused(folder, str(folder), mmap=mmap)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((N, DIM + 1), np.float32),
        np.ones((N - 1, DIM), np.float32),
        np.ones((N, DIM)),
        np.ones(N * DIM, np.float32),
        np.full((N, DIM), np.nan, np.float32),
        np.zeros((N, DIM), np.float32),
    ],
)
def test_embeddings_that_do_not_fit(folder: Path, array: np.ndarray) -> None:
    (file,) = folder.glob("descriptors-*")
    np.save(file, array)
    rewrite(folder, lambda content: None)
    refused(folder, file.name)
    if array.shape != (N, DIM) or array.dtype != np.float32:
        refused(folder, file.name, mmap=True)  # the rows themselves stay on the disk


def test_embeddings_that_announce_more_than_there_is(folder: Path) -> None:
    (file,) = folder.glob("descriptors-*")
    content = file.read_bytes()
    announced = content.replace(b"(40, 8), }" + b" " * 9, b"(4000000000, 8), } ")
    assert announced != content and len(announced) == len(content)
    for changed in (announced, content[:-1], content + b"x"):
        file.write_bytes(changed)
        rewrite(folder, lambda content: None)
        refused(folder, file.name)
        refused(folder, file.name, mmap=True)


def test_faiss_files_that_do_not_fit(folder: Path) -> None:
    (file,) = folder.glob("faiss-*")
    content = file.read_bytes()
    other = faiss.index_factory(DIM + 1, "HNSW8")
    other.add(np.ones((N, DIM + 1), np.float32))
    cut = content[: len(content) // 2]
    # The number of levels' bounds is the first list; faiss would ask for 2**39 bytes.
    huge = content[:33] + (2**39).to_bytes(8, "little") + content[41:]
    for changed in (faiss.serialize_index(other).tobytes(), cut, huge, b"text", b""):
        file.write_bytes(changed)
        rewrite(folder, lambda content: None)
        refused(folder, file.name, trust_faiss_file=True)


@pytest.mark.parametrize("mmap", [False, True])
def test_an_index_of_somebody_else_is_made_again_from_its_embeddings(folder: Path, mmap: bool) -> None:
    (file,) = folder.glob("faiss-*")
    expected = SearchIndex.load(folder).search(random_rows(np.arange(5)), 3)
    file.write_bytes(b"hostile")
    rewrite(folder, lambda content: None)
    index = SearchIndex.load(folder, mmap=mmap, trust_faiss_file=False)
    assert index.search(random_rows(np.arange(5)), 3) == expected
    if not mmap:
        index.save()
        assert SearchIndex.load(folder).search(random_rows(np.arange(5)), 3) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_a_pipe_in_the_place_of_the_manifest_is_not_waited_for(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    with pytest.raises(FileNotFoundError, match="is not an index"):
        SearchIndex.load(folder)


def test_a_manifest_of_gigabytes_is_not_read(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 2**40)
    refused(folder, f"manifest.json' has {2**40} bytes, expected at most")


def test_after_a_million_saves_there_is_one_more(folder: Path) -> None:
    rewrite(folder, lambda content: content.update(generation=999_999))
    index = SearchIndex.load(folder)
    index.remove("000000.png")
    index.save()
    assert len(SearchIndex.load(folder)) == N - 1
