"""The walk over a folder: links, litter, odd names, and what is said about the rest."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from oml_vit_ext.images import formats
from oml_vit_ext.images.folders import image_files


def _touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files(folder)]


def test_images_come_in_the_order_of_their_names(tmp_path: Path):
    _touch(*(tmp_path / name for name in ("b/2.png", "b/1.JPG", "a/c/x.jfif", "z.gif", "a/notes.txt")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _names(tmp_path) == ["z.gif", "a/c/x.jfif", "b/1.JPG", "b/2.png"]


def test_litter_is_left_out_without_a_word(tmp_path: Path):
    litter = (
        ".ipynb_checkpoints/cat.jpg",
        "._cat.jpg",
        "__MACOSX/cat.jpg",
        "@eaDir/cat.jpg",
        "Thumbs.db",
        ".a/b/c.png",
    )
    _touch(*(tmp_path / name for name in (*litter, "cat.jpg")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _names(tmp_path) == ["cat.jpg"]


def test_links_are_followed_once(tmp_path: Path):
    root, other = tmp_path / "root", tmp_path / "other"
    _touch(root / "cat/1.jpg", other / "dog/1.jpg", tmp_path / "single.jpg")
    (root / "dog").symlink_to(other / "dog")
    (root / "cat/one.jpg").symlink_to(tmp_path / "single.jpg")
    (root / "cat/back").symlink_to(root)
    (other / "dog/loop").symlink_to(other / "dog")
    with pytest.warns(UserWarning, match=r"visited already \(2\): cat/back; dog/loop"):
        assert _names(root) == ["cat/1.jpg", "cat/one.jpg", "dog/1.jpg"]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "reads_heic", lambda: False)
    _touch(*(tmp_path / f"a/IMG_{i}.HEIC" for i in range(5)), tmp_path / "a/1.jpg", tmp_path / "b/photo.dng")
    (tmp_path / "b/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "other_disk").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    _touch(*(tmp_path / "web" / name for name in ("a.jpg?w=600", "a.JPG.1", "a.png.part", "a.jpg.json", "a.jpg.txt")))
    with pytest.warns(UserWarning) as caught:
        assert _names(tmp_path) == ["a/1.jpg"]
    (told,) = (str(warning.message) for warning in caught)
    assert (
        "oml-vit-ext[heic]', or convert them to JPEG (5): a/IMG_0.HEIC; a/IMG_1.HEIC; a/IMG_2.HEIC; and 2 more." in told
    )
    assert "raw photos are not read: convert them to JPEG (1): b/photo.dng" in told
    assert "the link leads nowhere (2): other_disk; b/gone.jpg" in told
    assert "(3): web/a.JPG.1; web/a.jpg?w=600; web/a.png.part." in told and "json" not in told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_nobody_waits_for_a_pipe(tmp_path: Path):
    _touch(tmp_path / "1.jpg")
    os.mkfifo(tmp_path / "camera.jpg")
    with pytest.warns(UserWarning, match=r"it is a pipe, a socket or a device \(1\): camera\.jpg"):
        assert _names(tmp_path) == ["1.jpg"]


def test_folders_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _touch(tmp_path / "open/1.jpg", tmp_path / "closed/1.jpg")
    scandir = os.scandir

    def closed_to_us(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed_to_us)  # a mode would not keep out root
    with pytest.warns(UserWarning, match=r"cannot be opened \(Permission denied\) \(1\): closed"):
        assert _names(tmp_path) == ["open/1.jpg"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", "日本語 фото.jpg".encode(), b"a b\n.jpg", b"x" * 200 + b".jpg"])
def test_names_of_any_bytes(tmp_path: Path, name: bytes):
    file = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    file.touch()
    assert list(image_files(tmp_path)) == [file]
