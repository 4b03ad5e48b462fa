"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from oml_vit_ext.common import files
from oml_vit_ext.common.files import UNFINISHED, check_lock, replaced, write_frame, write_lines


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


WRITES = """
import sys, time
from oml_vit_ext.common.files import replaced
with replaced(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    print(unfinished.name, flush=True)
    time.sleep(300)
"""


@pytest.fixture()
def left_by_a_killed_process(tmp_path: Path) -> Path:
    """What a process that writes x.txt leaves when it is killed."""
    with subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path / "x.txt")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = tmp_path / process.stdout.readline().decode().strip()
        write_lines(["while it writes"], tmp_path / "x.txt")
        assert left.is_file()
        process.kill()
    return left


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which start of a machine it is")
def test_what_a_killed_process_left_goes_with_the_next_write(left_by_a_killed_process: Path):
    left = left_by_a_killed_process
    here, numbers = re.fullmatch(r"\.x\.([0-9a-f]{16})-(\d+-\d+)\.partial\.txt", left.name).groups()
    others = [
        f".x.{here}-{os.getpid()}-1.partial.txt",  # a thread of this process
        f".x.{here}-1-1.partial.txt",  # a process that is there
        f".x.0123456789abcdef-{numbers}.partial.txt",  # of another machine
        f".x.{numbers}.partial.txt",  # it does not tell of which
        f".y.{here}-{numbers}.partial.txt",
        f".x.{here}-{numbers}.partial.csv",
        f".x.{here}-{numbers}.partial.txt.bak",
        f"x.{here}-{numbers}.partial.txt",
    ]
    for name in others:
        left.with_name(name).write_text("somebody's")
    write_lines(["new"], left.with_name("x.txt"))
    assert {path.name for path in left.parent.iterdir()} == {*others, "x.txt"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which start of a machine it is")
def test_nothing_goes_where_a_process_cannot_be_told(left_by_a_killed_process: Path, monkeypatch: pytest.MonkeyPatch):
    def not_told(_: str) -> str:
        raise OSError

    monkeypatch.setattr(files.os, "readlink", not_told)
    write_lines(["new"], left_by_a_killed_process.with_name("x.txt"))
    assert left_by_a_killed_process.is_file()


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_what_its_owner_has_closed_stays_closed(tmp_path: Path):
    file = tmp_path / "x.txt"
    for mode in (0o600, 0o640, 0o444):
        file.write_text("old")
        file.chmod(mode)
        write_lines(["new"], file)
        assert stat.S_IMODE(file.stat().st_mode) == mode and file.read_text() == "new\n"
        file.chmod(0o600)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_no_lock_is_not_taken_for_one(tmp_path: Path):
    lock = tmp_path / ".lock"
    check_lock(lock)
    lock.touch()
    check_lock(lock)
    os.link(lock, tmp_path / "other")
    with pytest.raises(OSError, match="is a link, expected a file of its own"):
        check_lock(lock)
    (tmp_path / "other").unlink()
    lock.write_text("of another program")
    with pytest.raises(OSError, match="is no lock of this package"):
        check_lock(lock)
    lock.unlink()
    for make in (os.mkdir, os.mkfifo):
        make(lock)
        with pytest.raises(OSError, match="is no lock of this package"):
            check_lock(lock)
        shutil.rmtree(lock) if lock.is_dir() else lock.unlink()
