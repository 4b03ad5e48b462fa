"""What is on disk after a crash, a second writer or damage; the user's files stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from oml_vit_ext.common import files as common_files
from oml_vit_ext.retrieval import Embedder, SearchIndex, locked
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
    assert not (photos / ".lock").exists()
    with pytest.raises(ValueError, match="name the folder"):
        index.save()
    SearchIndex.load(kept).save(tmp_path / "copy")
    assert len(SearchIndex.load(tmp_path / "copy")) == 12


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
