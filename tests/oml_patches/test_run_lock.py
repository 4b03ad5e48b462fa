"""One training at a time writes its checkpoints to a folder."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from oml_vit_ext.oml_patches.run_lock import alone_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path):
    folder = tmp_path / "run" / "checkpoints"
    for _ in range(2):
        with alone_in(folder):
            with pytest.raises(RuntimeError, match="Another training is writing its checkpoints"), alone_in(folder):
                pass
            with alone_in(tmp_path / "other"):
                pass
    with pytest.raises(KeyboardInterrupt), alone_in(folder):
        raise KeyboardInterrupt
    with alone_in(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_loader_process_that_outlives_a_killed_training_does_not_keep_it(tmp_path: Path):
    fork = multiprocessing.get_context("fork")

    def train() -> None:
        with alone_in(tmp_path):
            fork.Process(target=time.sleep, args=(60,)).start()
            (tmp_path / "begun").touch()
            time.sleep(60)

    training = fork.Process(target=train)
    training.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="Another training"), alone_in(tmp_path):
        pass
    (loader,) = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    training.kill()
    training.join()
    try:
        with alone_in(tmp_path):
            os.kill(int(loader), 0)  # it is still there
    finally:
        os.kill(int(loader), 9)


def test_a_folder_that_cannot_be_made_is_told_by_who_writes_there(tmp_path: Path):
    (tmp_path / "file").touch()
    with alone_in(tmp_path / "file" / "checkpoints"):
        pass
