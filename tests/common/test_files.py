"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pandas as pd
import pytest

from oml_vit_ext.common import files
from oml_vit_ext.common.files import UNFINISHED, replaced, write_frame, write_lines


def test_what_the_block_writes_takes_the_place(tmp_path: Path):
    file = tmp_path / "new/folder/x.txt"
    with replaced(file) as unfinished:
        unfinished.write_text("new")
        assert not file.exists() and unfinished.parent == file.parent and unfinished.suffix == ".txt"
        assert re.fullmatch(UNFINISHED.format("x"), unfinished.name)
    assert file.read_text() == "new" and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_file_and_no_litter(tmp_path: Path, error: type[BaseException]):
    file = tmp_path / "x.txt"
    file.write_text("old")
    with pytest.raises(error), replaced(file) as unfinished:
        unfinished.write_text("half")
        raise error
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "x.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_do_not_write_into_each_others_file(tmp_path: Path):
    names, both = [], threading.Barrier(2)

    def write(text: str) -> None:
        with replaced(tmp_path / "x.txt") as unfinished:
            unfinished.write_text(text)
            names.append(unfinished.name)
            both.wait(10)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("aaa", "bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 2 and (tmp_path / "x.txt").read_text() in ("aaa", "bbb")
    assert len(list(tmp_path.iterdir())) == 1


def test_names_of_the_greatest_length_can_be_replaced(tmp_path: Path):
    file = tmp_path / ("x" * 251 + ".csv")
    write_frame(pd.DataFrame({"a": [1, 2]}), file)
    assert file.read_text() == "a\n1\n2\n"


def test_no_lines_are_no_file(tmp_path: Path):
    write_lines(["a", "b"], tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text() == "a\nb\n"
    for _ in range(2):
        write_lines([], tmp_path / "x.txt")
        assert not (tmp_path / "x.txt").exists()


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a power cut would show: a name without its content."""
    file, done = tmp_path / "x.txt", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino) or fsync(handle))
    monkeypatch.setattr(files.os, "replace", lambda a, b: done.append("renamed") or replace(a, b))
    with replaced(file) as unfinished:
        unfinished.write_text("content")
    assert done == [file.stat().st_ino, "renamed"]
