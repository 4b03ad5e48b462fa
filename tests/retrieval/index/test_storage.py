"""What is on disk after a crash, a second writer or damage; the user's files stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.limits import file_size_limit
from helpers.random_index import add_numbers, add_random, random_index, random_rows
from oml_vit_ext.common import files as common_files
from oml_vit_ext.retrieval import Embedder, SearchIndex, list_images, locked
from oml_vit_ext.retrieval.index import search_index, storage, table
from oml_vit_ext.retrieval.index.storage import LOCK


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("damage", ["cut short", "changed", "gone"])
@pytest.mark.parametrize("kind", ["images", "descriptors", "faiss", "manifest"])
def test_a_damaged_file_is_told(photos: Path, embedder: Embedder, tmp_path: Path, kind: str, damage: str) -> None:
    index, _ = SearchIndex.build(photos, embedder, index="HNSW8")
    index.save(tmp_path / "index")
    file = next((tmp_path / "index").glob(f"{kind}*"))
    content = file.read_bytes()
    if damage == "cut short":
        file.write_bytes(content[:-30])
    elif damage == "changed":
        file.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    else:
        file.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"cut short|damaged|lacks its file|is not an index"):
        SearchIndex.load(tmp_path / "index")


def test_a_crash_while_saving_leaves_the_last_state(
    photos: Path, kept: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(kept)
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "green.png")
    replace = os.replace
    n_renames = 3  # images, embeddings, manifest
    for dies_at in range(n_renames):
        index = SearchIndex.load(kept)
        index.add(photos, embedder)
        done: list[str] = []

        def dying(a, b, dies_at=dies_at, done=done) -> None:
            if len(done) == dies_at:
                raise KeyboardInterrupt
            done.append(str(b))
            replace(a, b)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(common_files.os, "replace", dying)
            index.save()
        assert len(SearchIndex.load(kept)) == 12
    index.save()  # what was not saved is still in memory
    after = files_in(kept)
    assert len(SearchIndex.load(kept)) == 13
    assert not [name for name in after if name.endswith(".partial")] and len(after) == len(before) + 2


def test_a_second_writer_is_refused_at_once_and_readers_are_not(kept: Path, embedder: Embedder) -> None:
    # What ``locked`` does, without the seconds that the other process would need to import this package.
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('locked', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(kept / LOCK)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        index = SearchIndex.load(kept)
        with pytest.raises(RuntimeError, match="is being written by another process"):
            index.save()
    finally:
        other.kill()
        other.wait()
    index.save()  # the lock went with the process


def test_an_index_saved_by_somebody_else_since_loading_is_not_overwritten(
    photos: Path, kept: Path, embedder: Embedder
) -> None:
    first, second = SearchIndex.load(kept), SearchIndex.load(kept)
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "green.png")
    first.add(photos, embedder)
    first.save()
    second.add(photos, embedder)
    with pytest.raises(RuntimeError, match="written by another process since it was loaded"):
        second.save()
    with locked(kept), locked(kept):  # within one process the lock can be taken again
        first.save()


def test_saving_never_replaces_other_files(photos: Path, kept: Path, embedder: Embedder, tmp_path: Path) -> None:
    index, _ = SearchIndex.build(photos, embedder)
    with pytest.raises(FileExistsError, match="holds an index of 12 images"):
        index.save(kept)
    with pytest.raises(FileExistsError, match="no index and holds other files"):
        index.save(photos)
    with pytest.raises(FileExistsError, match=r"00\.png' is a file, expected a folder for an index"):
        index.save(photos / "shelf 0/00.png")
    assert not (photos / ".lock").exists()
    with pytest.raises(ValueError, match="name the folder"):
        index.save()
    SearchIndex.load(kept).save(tmp_path / "copy")
    assert len(SearchIndex.load(tmp_path / "copy")) == 12


def test_a_link_in_the_place_of_the_lock_is_not_followed(kept: Path, tmp_path: Path) -> None:
    """Some versions of filelock empty the file that they lock."""
    (tmp_path / "victim").write_text("mine")
    (kept / LOCK).unlink()
    (kept / LOCK).symlink_to(tmp_path / "victim")
    index = SearchIndex.load(kept)
    index.remove("shelf 0/00.png")
    with pytest.raises(OSError, match=r"\.lock' is a link, expected a file of its own"):
        index.save()
    assert (tmp_path / "victim").read_text() == "mine"


def test_files_of_the_user_survive_every_save(photos: Path, kept: Path, embedder: Embedder, tmp_path: Path) -> None:
    theirs = ["images-000.png", "faiss-notes.txt", "images-backup.zip", "download.partial", "descriptors-1.npy"]
    for name in theirs:
        (kept / name).write_text(name)
    (kept / "descriptors-old").mkdir()
    (kept / "descriptors-old" / "faiss-000001.index").write_text("kept")
    index = SearchIndex.load(kept)
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (30, 30), colour).save(photos / "new.png")
        index.add(photos, embedder)
        index.save()
    assert [(kept / name).read_text() for name in theirs] == theirs
    assert (kept / "descriptors-old" / "faiss-000001.index").read_text() == "kept"
    assert len(SearchIndex.load(kept)) == 13

    (tmp_path / "album").mkdir()
    for name in ("images-000.png", "descriptors-old.png"):
        Image.new("RGB", (30, 30)).save(tmp_path / "album" / name)
    album, _ = SearchIndex.build(tmp_path / "album", embedder)
    with pytest.raises(FileExistsError, match=r"no index and holds other files \('descriptors-old.png'\)"):
        album.save(tmp_path / "album")
    assert sorted(path.name for path in (tmp_path / "album").iterdir()) == ["descriptors-old.png", "images-000.png"]


def test_the_manifest_can_be_read_by_people(kept: Path, photos: Path) -> None:
    content = json.loads((kept / "manifest.json").read_text())["content"]
    assert content["root"] == str(photos) and content["n_images"] == 12 and content["model"]["model"] == "IRTExtractor"


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF4,Flat"])
def test_a_disk_without_room_leaves_the_last_state(tmp_path: Path, factory: str) -> None:
    """Neither numpy nor faiss tells that the last bytes of a file found no room."""
    random_index(tmp_path, factory, 400).save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index")
    add_random(index, 400)
    index.save(tmp_path / "roomy")
    n_failed = 0
    for size in sorted({path.stat().st_size for path in (tmp_path / "roomy").iterdir()})[1:]:
        for n_bytes in (size - 3_000, size - 100, size - 1):
            index = SearchIndex.load(tmp_path / "index")
            add_random(index, 400)
            try:
                with file_size_limit(n_bytes):
                    index.save()
            except OSError:
                n_failed += 1
                assert len(SearchIndex.load(tmp_path / "index")) == 400
                assert not [path.name for path in (tmp_path / "index").iterdir() if ".partial" in path.name]
            else:  # its new part is shorter than what ``roomy`` has in one
                assert len(SearchIndex.load(tmp_path / "index")) == 800
                index = random_index(tmp_path, factory, 400)
                shutil.rmtree(tmp_path / "index")
                index.save(tmp_path / "index")
    assert n_failed >= 3


def test_a_save_elsewhere_that_fails_changes_nothing(tmp_path: Path) -> None:
    random_index(tmp_path, "HNSW8", 30).save(tmp_path / "a")
    index = SearchIndex.load(tmp_path / "a")
    add_random(index, 30)
    with file_size_limit(1_500), pytest.raises(OSError):
        index.save(tmp_path / "b")
    index.save()
    assert len(SearchIndex.load(tmp_path / "a")) == 60
    index.save(tmp_path / "b")
    add_random(index, 5)
    index.save()
    assert len(SearchIndex.load(tmp_path / "a")) == 60 and len(SearchIndex.load(tmp_path / "b")) == 65


@pytest.mark.parametrize(("factory", "mmap"), [("Flat", False), ("Flat", True), ("HNSW8", False)])
def test_loads_while_somebody_saves(tmp_path: Path, factory: str, mmap: bool) -> None:
    index = random_index(tmp_path, factory, 20)
    index.save(tmp_path / "index")

    def keep_saving() -> None:
        for _ in range(60):
            add_random(index, 1)
            index.save()

    saver = threading.Thread(target=keep_saving)
    saver.start()
    n_loads = 0
    while saver.is_alive() or n_loads == 0:
        loaded = SearchIndex.load(tmp_path / "index", mmap=mmap)
        numbers = loaded.images.path.str[:6].astype(int).to_numpy()
        assert sorted(numbers) == list(range(len(loaded)))
        np.testing.assert_array_equal(loaded._table.rows().block(0, len(loaded)), random_rows(numbers))
        assert loaded._faiss.index is None or loaded._faiss.index.ntotal == len(loaded)
        n_loads += 1
    saver.join()
    assert len(SearchIndex.load(tmp_path / "index")) == 80


def test_files_of_an_index_without_its_manifest_are_not_taken_for_litter(tmp_path: Path) -> None:
    """They are all that is left of somebody's index, or only look like such files."""
    folder = tmp_path / "index"
    random_index(tmp_path, n=30).save(folder)
    (folder / "manifest.json").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"holds the file 'descriptors-000001-000000.npy' of an index, but no mani"
    ):
        random_index(tmp_path, n=5).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_an_interrupted_first_save_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search_index, "commit", interrupt)
        random_index(tmp_path, "HNSW8", n=30).save(folder)
    assert {path.name for path in folder.glob("[!.]*")} == {
        *("images-000001-000000.csv", "descriptors-000001-000000.npy", "faiss-000001.index")
    }
    random_index(tmp_path, n=5).save(folder)
    assert len(SearchIndex.load(folder)) == 5
    assert {path.name for path in folder.iterdir()} - {LOCK} == {
        *("images-000001-000000.csv", "descriptors-000001-000000.npy", "manifest.json")
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_after_the_new_state_is_there(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index in memory knows that it was saved, and can be saved again."""
    folder = tmp_path / "index"
    index = random_index(tmp_path, "HNSW8", 30)
    index.save(folder)
    flush = storage.flush

    def flush_files_alone(path: Path) -> None:
        if path.is_dir():
            raise error
        flush(path)

    add_random(index, 5)
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(storage, "flush", flush_files_alone)
        index.save()
    assert len(SearchIndex.load(folder)) == 35
    add_random(index, 5)
    index.save()
    assert len(SearchIndex.load(folder)) == 40


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["ascontiguousarray", "concat"])
def test_an_interrupted_addition_leaves_an_index_that_can_be_saved(
    tmp_path: Path, where: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who stops a long run, or has too little memory for the next part, keeps what there is."""
    index = random_index(tmp_path, "HNSW8", 30)
    index.save(tmp_path / "index")
    add_random(index, 5)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    module = table.np if where == "ascontiguousarray" else table.pd
    rows = random_rows(np.arange(100, 110))
    frame = list_images(pd.DataFrame({"path": [f"{i:06d}.png" for i in range(100, 110)]}), tmp_path)
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(module, where, fail)
        index._store(frame.assign(digest=""), rows)
    assert len(index) == 35 and not index.holds("000100.png")
    index.save()
    loaded = SearchIndex.load(tmp_path / "index")
    np.testing.assert_array_equal(loaded.embeddings, random_rows(np.arange(35)))
    add_numbers(loaded, np.arange(100, 110))
    assert loaded.search(rows[:1], 1)[0][0].path == "000100.png"
