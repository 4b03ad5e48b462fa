"""Checkpoints are written as a whole or not at all, and read without running what is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.limits import file_size_limit
from oml_vit_ext.oml_patches.checkpoint_files import CheckpointFiles, read_checkpoint


class Bite:
    def __reduce__(self) -> Any:
        return os.mkdir, ("bitten",)


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    """A checkpoint of one large weight."""
    CheckpointFiles().save_checkpoint({"step": 1, "weight": torch.arange(10_000.0)}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def refused(path: Path) -> str:
    with pytest.raises(RuntimeError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"Checkpoint {str(path)!r} ") and "\n" not in message
    return message


def test_what_was_written_is_read_with_the_paths_in_it(tmp_path: Path):
    files = CheckpointFiles()
    files.save_checkpoint({"weight": torch.arange(3), "root": Path("data/sop")}, tmp_path / "new" / "last.ckpt")
    for read in (files.load_checkpoint, read_checkpoint):
        found = read(tmp_path / "new" / "last.ckpt")
        assert found["root"] == Path("data/sop") and found["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_torn_file_is_told(file: Path, kept: float):
    os.truncate(file, int(file.stat().st_size * kept))
    message = refused(file)
    assert "is damaged or no checkpoint (" in message and message.endswith("; there is no other one beside it.")


def test_one_wrong_byte_is_found(file: Path):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255  # within the weight
    file.write_bytes(data)
    assert "the check sum of its part" in refused(file)


def test_the_finished_ones_beside_it_are_named(file: Path):
    for name in ("best.ckpt", "a.ckpt", ".last.1-2.partial.ckpt", "notes.txt"):
        (file.parent / name).touch()
    file.write_text("no checkpoint")
    assert refused(file).endswith("; beside it: a.ckpt, best.ckpt.")


def test_code_in_a_file_does_not_run(in_tmp_path: Path):
    torch.save({"step": 1, "more": Bite()}, "evil.ckpt")
    assert "holds more than tensors and plain data (posix.mkdir): reading it could run any code" in refused(
        Path("evil.ckpt")
    )
    assert not Path("bitten").exists()


def test_an_interrupted_write_leaves_the_last_good_one(file: Path, monkeypatch: pytest.MonkeyPatch):
    def write_half(_: Any, out: Any) -> None:
        out.write(b"half")
        raise KeyboardInterrupt

    before = file.read_bytes()
    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        CheckpointFiles().save_checkpoint({"step": 2}, file)
    assert file.read_bytes() == before and os.listdir(file.parent) == ["last.ckpt"]


def test_a_full_disk_leaves_the_last_good_one(file: Path):
    before = file.read_bytes()
    kept = "could not be written, the one that was there before is whole: "
    with file_size_limit(100_000), pytest.raises(OSError, match=kept):
        CheckpointFiles().save_checkpoint({"step": 2, "weights": torch.zeros(1_000_000)}, file)
    assert file.read_bytes() == before and os.listdir(file.parent) == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(OSError, match=r"Checkpoint '.*last.ckpt' could not be written, nothing was there before: "):
        CheckpointFiles().save_checkpoint({"step": 1}, tmp_path / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("DataLoader worker (pid 7) is killed by signal")])
def test_what_interrupts_a_write_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    """torch's writer would say "unexpected pos", and we that the disk is to blame."""
    files, path = CheckpointFiles(), tmp_path / "last.ckpt"
    files.save_checkpoint({"global_step": 1}, path)

    class Interrupting:
        def __reduce__(self):
            raise error

    with pytest.raises(type(error)) as told:
        files.save_checkpoint({"w": torch.zeros(10), "global_step": Interrupting()}, path)
    assert told.value is error
    write = torch._C.PyTorchFileWriter.write_record

    class Writer(torch._C.PyTorchFileWriter):
        def write_record(self, name: str, *args: object) -> None:
            if name == "data.pkl":
                write(self, name, *args)
            else:
                raise error

    monkeypatch.setattr(torch._C, "PyTorchFileWriter", Writer)
    with pytest.raises(type(error)) as told:
        files.save_checkpoint({"w": torch.zeros(10)}, path)
    assert told.value is error
    monkeypatch.undo()
    assert read_checkpoint(path) == {"global_step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_parts_that_stand_in_each_other_and_numbers_that_stand_for_billions(tmp_path: Path):
    file, nested = tmp_path / "last.ckpt", (1, 2)
    for _ in range(40):
        nested = (nested, nested)  # type: ignore[assignment]
    torch.save({"state": nested}, file)
    assert "stand in each other so often" in refused(file)
    moment = torch.zeros(1, dtype=torch.half).expand(10**9, 8)  # in another type, an optimizer would need the memory
    torch.save({"optimizer_states": [{"state": {0: {"exp_avg": moment}}}]}, file)
    assert "it holds a tensor of shape (1000000000, 8), expected no more than" in refused(file)
