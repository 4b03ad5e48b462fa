"""What a file of weights is by its content."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from oml_vit_ext.extractors.checkpoints import read_state_dict
from oml_vit_ext.extractors.file_kinds import is_by_torch, is_safetensors, what_else

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


def _packed(how: str) -> bytes:
    stream, content = io.BytesIO(), b"0" * 40
    if how == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("model/weights.pth", content)
    else:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("weights.pth"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page: download the file itself"),
        (b"\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS .* git lfs pull"),
        (gzip.compress(b"0" * 40, mtime=0), "compressed: unpack it first"),
        (b'{"weight_map": {}}', "a text in JSON"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "an array of numpy"),
        (_packed("zip"), r"a zip archive of model/weights\.pth: unpack it first"),
        (_packed("tar"), "a tar archive: unpack it first"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_other_files_are_named_for_what_they_are(tmp_path: Path, content: bytes, said: str, ending: str):
    (tmp_path / f"x.{ending}").write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"is not a checkpoint of torch but {said}") as caught:
        read_state_dict(tmp_path / f"x.{ending}")
    assert "allow_pickle" not in str(caught.value)


def test_a_program_of_torchscript_is_told(tmp_path: Path):
    torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(RuntimeError, match=r"but a program of TorchScript: load it with torch\.jit\.load"):
        read_state_dict(tmp_path / "ViT-B-32.pt")


def test_other_programs_are_told(tmp_path: Path):
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),)), tmp_path / "model.pt2")
    with pytest.raises(RuntimeError, match=r"but a program of torch\.export: load it with torch\.export\.load"):
        read_state_dict(tmp_path / "model.pt2")
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(RuntimeError, match=r"but an ONNX file: its tensors have lost the names"):
        read_state_dict(tmp_path / "model.onnx")


@pytest.mark.parametrize("ending", ["pth", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("written", ["torch", "old torch", "safetensors"])
def test_the_content_counts_not_the_ending(tmp_path: Path, ending: str, written: str):
    file = tmp_path / f"x.{ending}"
    if written == "safetensors":
        save_file(STATE, file, metadata={"format": "pt"})
    else:
        torch.save(STATE, file, _use_new_zipfile_serialization=written == "torch")
    assert what_else(file) is None
    assert (is_safetensors(file), is_by_torch(file)) == (written == "safetensors", written != "safetensors")
    assert torch.equal(read_state_dict(file)["a.weight"], STATE["a.weight"])


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path):
    """The first byte is the lowest one of that length."""
    for more in range(256):
        content = save(STATE, metadata={"note": "x" * more})
        if content[0] == 0x80:
            break
    assert content[0] == 0x80
    (tmp_path / "x.pth").write_bytes(content)
    assert torch.equal(read_state_dict(tmp_path / "x.pth")["a.weight"], STATE["a.weight"])
