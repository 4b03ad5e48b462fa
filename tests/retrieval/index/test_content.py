"""Files are known by what is in them, and are gone only when it is certain that they are."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from oml_vit_ext.retrieval.index.content import digests, is_gone, stamp

SIZES = [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7]  # bytes; content is read in parts of 1 << 20


@pytest.mark.parametrize("size", SIZES)
def test_the_digest_is_that_of_the_whole_content(tmp_path: Path, size: int):
    content = random.Random(size).randbytes(size)
    (tmp_path / "x.jpg").write_bytes(content)
    assert digests([tmp_path / "x.jpg"]) == [hashlib.blake2b(content, digest_size=16).hexdigest()]


def test_digests_stand_in_the_order_of_the_files_and_unreadable_ones_have_none(tmp_path: Path):
    files = [tmp_path / f"{i}.jpg" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * (1 + 100_000 * (i % 3)))
    alone = [digests([file])[0] for file in files]
    assert len(set(alone)) == 20 and digests(files) == alone
    files[3].unlink()
    files[5] = tmp_path  # a folder
    found = digests(files)
    assert [i for i, digest in enumerate(found) if digest != alone[i]] == [3, 5] and found[3] == found[5] == ""


def test_a_renamed_file_keeps_its_digest_and_a_changed_one_does_not(tmp_path: Path):
    file, renamed = tmp_path / "a.jpg", tmp_path / "b.png"
    file.write_bytes(b"one photo")
    before = digests([file])
    file.rename(renamed)
    assert digests([renamed]) == before
    state = renamed.stat()
    renamed.write_bytes(b"two photo")
    os.utime(renamed, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size and time
    assert digests([renamed]) != before


def test_a_file_whose_time_was_set_back_is_noticed(tmp_path: Path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one photo")
    os.utime(file, ns=(10**18, 10**18))
    before = stamp(file)
    assert before[0] == 9 and before[1] == file.stat().st_ctime_ns
    (tmp_path / "b.jpg").write_bytes(b"two photo")
    os.utime(tmp_path / "b.jpg", ns=(10**18, 10**18))
    (tmp_path / "b.jpg").replace(file)
    assert file.stat().st_mtime_ns == 10**18 and stamp(file) != before
    assert stamp(tmp_path / "never.jpg") == (-1, -1)


def test_a_file_is_gone_where_there_is_none(tmp_path: Path):
    (tmp_path / "there.jpg").touch()
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "removed.jpg")
    names = ["there.jpg", "never.jpg", "no/folder.jpg", "there.jpg/inside.jpg", "nowhere.jpg"]
    assert [is_gone(tmp_path / name) for name in names] == [False, True, True, True, True]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_that_cannot_be_reached_now_is_not_gone(reason: int, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Path) -> None:
        raise OSError(reason, os.strerror(reason), str(self))

    monkeypatch.setattr(Path, "stat", fail)
    assert not is_gone(Path("share/photo.jpg"))
