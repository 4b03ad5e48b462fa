"""Marks that only their user can make, and what they decide: whose faiss files are read."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers.random_index import add_random, random_index, random_rows
from oml_vit_ext.retrieval import SearchIndex
from oml_vit_ext.retrieval.index import kept_faiss
from oml_vit_ext.retrieval.index.makers_mark import is_own, key_file, mark
from oml_vit_ext.retrieval.index.storage import MANIFEST, _checksum_text

QUERIES = random_rows(np.arange(5))


@pytest.fixture(autouse=True)
def _a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "me"))


def become_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody else"))


def was_read(folder: Path, monkeypatch: pytest.MonkeyPatch, **how: bool) -> bool:
    """Whether the faiss file was; either way the answers are the same."""
    expected = random_index(folder.parent, "HNSW16").search(QUERIES, 3)
    index = SearchIndex.load(folder, **how)
    read = index._faiss.index is not None
    assert index.search(QUERIES, 3) == expected
    return read


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    random_index(tmp_path, "HNSW16").save(tmp_path / "index")
    return tmp_path / "index"


def test_only_the_user_who_made_a_mark_takes_it_for_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = mark("abc")
    assert is_own(made, "abc") and not is_own(made, "abd") and not is_own("", "abc") and not is_own("é", "abc")
    assert mark("abc") == made and len(key_file().read_bytes()) == 32
    become_another_user(monkeypatch, tmp_path)
    assert not is_own(made, "abc") and not key_file().exists(), "looking needs no key"
    assert mark("abc") != made


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_key_is_for_its_user_alone():
    mark("abc")
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    key_file().chmod(0o644)
    assert not is_own("", "abc")
    with pytest.raises(PermissionError, match=r"can be read by others, expected the permissions 0600"):
        mark("abc")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such owners")
def test_a_key_of_another_user_is_none(monkeypatch: pytest.MonkeyPatch):
    """Whoever could put it into a folder that others may write to would know it."""
    marked = mark("checksum")
    assert is_own(marked, "checksum")
    monkeypatch.setattr(os, "geteuid", lambda: key_file().stat().st_uid + 1)
    assert not is_own(marked, "checksum")
    with pytest.raises(PermissionError, match="is another user's, expected one of yours: delete it"):
        mark("checksum")


def test_a_damaged_key_is_told():
    mark("abc")
    key_file().write_bytes(b"short")
    with pytest.raises(OSError, match=r"has 5 bytes, expected 32"):
        mark("abc")


def test_processes_that_begin_together_have_one_key():
    fork = multiprocessing.get_context("fork")
    found = fork.SimpleQueue()
    processes = [fork.Process(target=lambda: found.put(mark("abc"))) for _ in range(8)]
    for process in processes:
        process.start()
    marks = {found.get() for _ in processes}
    for process in processes:
        process.join()
    assert marks == {mark("abc")}
    assert [file.name for file in key_file().parent.iterdir()] == [key_file().name]


@pytest.mark.parametrize("mmap", [False, True])
def test_the_faiss_file_of_this_user_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch, mmap: bool):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert was_read(folder, monkeypatch, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_that_of_others_is_not_and_how_to_trust_it_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mmap: bool
):
    become_another_user(monkeypatch, tmp_path)
    monkeypatch.setattr(kept_faiss.faiss, "read_index", lambda *_: pytest.fail("faiss has read it"))
    with pytest.warns(UserWarning, match=r"does not bear your mark.*trust_faiss_file=True") as told:
        assert not was_read(folder, monkeypatch, mmap=mmap)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not was_read(folder, monkeypatch, mmap=mmap, trust_faiss_file=False)


def test_what_is_trusted_or_made_again_is_own_after_a_save(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for n, trust in enumerate((True, False)):
        become_another_user(monkeypatch, tmp_path / str(n))
        index = SearchIndex.load(folder, trust_faiss_file=trust)
        index.save()
        assert was_read(folder, monkeypatch)


def test_an_addition_to_an_index_of_others_is_searched_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    become_another_user(monkeypatch, tmp_path)
    with pytest.warns(UserWarning, match="does not bear your mark"):
        index = SearchIndex.load(folder)
    add_random(index, 5)
    index.save(finish=False)
    index.save()
    again = SearchIndex.load(folder)
    assert again._faiss.index.ntotal == 45
    assert [row[0].path for row in again.search(random_rows(np.arange(40, 45)), 1)] == [
        f"{i:06d}.png" for i in range(40, 45)
    ]


@pytest.mark.parametrize("mmap", [False, True])
def test_a_mark_does_not_help_another_file(folder: Path, mmap: bool):
    """Somebody who got an index from us and gives it back has a mark of ours, of one file."""
    (file,) = folder.glob("faiss-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}' is damaged: its checksum does not fit"):
        SearchIndex.load(folder, mmap=mmap)


def test_an_index_of_an_earlier_version_has_no_mark(folder: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = json.loads((folder / MANIFEST).read_text())["content"]
    del manifest["faiss_mark"]
    (folder / MANIFEST).write_text(json.dumps({"content": manifest, "checksum": _checksum_text(manifest)}))
    with pytest.warns(UserWarning, match="an earlier version"):
        assert not was_read(folder, monkeypatch)


def test_without_a_place_for_the_key_the_index_is_saved_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"saved without your mark \(.*Not a directory"):
        random_index(tmp_path, "HNSW16").save(tmp_path / "index")
    with pytest.warns(UserWarning, match="does not bear your mark"):
        assert not was_read(tmp_path / "index", monkeypatch)
    assert was_read(tmp_path / "index", monkeypatch, trust_faiss_file=True)


def test_exact_indexes_need_no_key(tmp_path: Path):
    random_index(tmp_path).save(tmp_path / "index")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(SearchIndex.load(tmp_path / "index")) == 40
    assert not key_file().exists()
