"""Files to tensors by name, and one sentence for each file that holds something else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.limits import file_size_limit
from oml_vit_ext.extractors.checkpoints import existing_file, read_safetensors, read_state_dict, write_safetensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


WRAPPINGS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda s: s,
    "beside other things": lambda s: {**s, "epoch": 3},
    "lightning": lambda s: {"state_dict": s, "epoch": 3, "folder": Path("run")},
    "deit": lambda s: {"model": s, "optimizer": {"lr": 1.0}},
    "dino": lambda s: {"student": {"x": torch.ones(1)}, "teacher": s},
    "ema": lambda s: {"state_dict_ema": s, "arch": "vit"},
    "two layers deep": lambda s: {"model_ema": {"state_dict": s}},
    "a loop of one's own": lambda s: {"extractor": s, "criterion": {"memory": torch.ones(1)}, "epoch": 3},
    "as in torch's tutorial": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"m": s["b"]}}}},
    "a name of one's own": lambda s: {"net": s, "epoch": 3, "loss": torch.tensor(0.5)},
    "deep under names of one's own": lambda s: {"checkpoint": {"weights": s, "lr": 1}},
    "average before trained": lambda s: {"state_dict_ema": s, "state_dict": {"x": torch.ones(1)}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_tensors_are_found_wherever_they_are_kept(tmp_path: Path, wrapping: str):
    torch.save(WRAPPINGS[wrapping](STATE), tmp_path / "x.pth")
    _assert_same(read_state_dict(tmp_path / "x.pth"), STATE)


def test_two_state_dicts_of_unknown_names_are_not_chosen_from(tmp_path: Path):
    torch.save({"net_a": STATE, "net_b": STATE}, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match=r"hold no state dict: .*; found net_a, net_b\."):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize(("ending", "write"), [("safetensors", save_file), ("bin", torch.save)])
def test_parts_of_a_model_are_read_together(tmp_path: Path, ending: str, write: Callable[[Any, Path], None]):
    for part, name in enumerate(STATE):
        write({name: STATE[name]}, tmp_path / f"model-{part}.{ending}")
    index = tmp_path / f"model.{ending}.index.json"
    index.write_text(json.dumps({"weight_map": {name: f"model-{i}.{ending}" for i, name in enumerate(STATE)}}))
    _assert_same(read_state_dict(index), STATE)
    (tmp_path / f"model-1.{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"model-1\.{ending}': there is no such file"):
        read_state_dict(index)
    itself = json.dumps({"weight_map": {"a": index.name}})
    for wrong in (
        '{"weight_map": {"a": "../x.safetensors"}}',
        "[]",
        '{"weight_map": 3}',
        "{",
        '{"weight_map": {"a": ""}}',
        itself,
    ):
        index.write_text(wrong)
        with pytest.raises(RuntimeError, match=r"is no index of a model in parts"):
            read_state_dict(index)


def test_parts_that_hold_code_run_nothing(tmp_path: Path):
    torch.save({**STATE, "x": _RunsCode(tmp_path / "touched")}, tmp_path / "part.bin")
    index = tmp_path / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "part.bin"}}))
    with pytest.raises(RuntimeError, match="hold more than tensors"):
        read_state_dict(index)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("outer", ["model", "stuff"])
def test_a_dict_that_holds_itself(tmp_path: Path, outer: str):
    content: dict[str, Any] = {"epoch": 1}
    content[outer] = {"inner": content} if outer == "stuff" else content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match=r"x\.pth' hold a dict that holds itself, expected a state dict\.$"):
        read_state_dict(tmp_path / "x.pth")


def test_safetensors_are_read_as_they_are(tmp_path: Path):
    half = {name: tensor.half() for name, tensor in STATE.items()}
    save_file(half, tmp_path / "x.safetensors")
    _assert_same(dict(sorted(read_state_dict(tmp_path / "x.safetensors").items())), half)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-3])
    with pytest.raises(RuntimeError, match=r"^pca '.*cut\.safetensors' is not a whole safetensors file"):
        read_safetensors(tmp_path / "cut.safetensors", "pca")


def test_a_file_is_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.pth").touch()
    assert existing_file("~/x.pth") == tmp_path / "x.pth"
    with pytest.raises(FileNotFoundError, match=rf"pca '~/y\.pth': there is no such file \(looked for {tmp_path}/y"):
        existing_file("~/y.pth", "pca")
    with pytest.raises(FileNotFoundError, match=r"^weights '~'"):
        existing_file("~")


class _RunsCode:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_code_in_a_file_runs_only_when_it_is_trusted(tmp_path: Path):
    path, touched = tmp_path / "x.pth", tmp_path / "touched"
    torch.save({"state_dict": STATE, "args": _RunsCode(touched)}, path)
    with pytest.raises(RuntimeError, match=r"hold more than tensors, .* pass allow_pickle=True \(in YAML"):
        read_state_dict(path)
    assert not touched.exists()
    _assert_same(read_state_dict(path, allow_pickle=True), STATE)
    assert touched.exists()


def test_a_whole_module_gives_its_state(tmp_path: Path):
    torch.save({"model": nn.Linear(3, 2)}, tmp_path / "x.pth")
    assert {name: t.shape for name, t in read_state_dict(tmp_path / "x.pth", allow_pickle=True).items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }


@pytest.mark.parametrize(
    ("content", "found"), [([1, 2], "list"), ({"epoch": 1, "lr": 2, "z": 3, "y": 4}, "epoch, lr, y, z"), ({}, "none")]
)
def test_a_file_without_tensors_tells_what_it_holds(tmp_path: Path, content: Any, found: str):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match=rf"x\.pth' hold no state dict: expected .*'teacher'.*; found {found}\.$"):
        read_state_dict(tmp_path / "x.pth")


def test_other_files_are_no_checkpoints(tmp_path: Path):
    (tmp_path / "text.pth").write_text("Entry not found")
    with pytest.raises(RuntimeError, match=r"text\.pth' is not a checkpoint of torch"):
        read_state_dict(tmp_path / "text.pth", allow_pickle=True)
    (tmp_path / "flax_model.msgpack").write_bytes(b"\x83\xa7encoder" + bytes(30))
    with pytest.raises(RuntimeError, match=r"is not a checkpoint of torch \([^()]+\)\.$"):
        read_state_dict(tmp_path / "flax_model.msgpack")
    torch.save(STATE, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r"cut\.pth' cannot be read, is it truncated or damaged\?"):
        read_state_dict(tmp_path / "cut.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(RuntimeError, match=r"weights '.*plain\.pkl'"):
        read_state_dict(tmp_path / "plain.pkl")


def test_a_full_disk_is_an_os_error_and_the_old_file_stays(tmp_path: Path):
    """safetensors itself raises an error of a kind of its own, which nobody expects."""
    file = tmp_path / "w.safetensors"
    write_safetensors({"w": torch.ones(3)}, file, {"note": "old"})
    before = file.read_bytes()
    with file_size_limit(1_000), pytest.raises(OSError):
        write_safetensors({"w": torch.ones(3_000)}, file)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert read_state_dict(file)["w"].tolist() == [1, 1, 1]
