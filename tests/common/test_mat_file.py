"""MATLAB files: what comes back, and that a damaged one is an error, whatever it does to its reader."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from oml_vit_ext.common import mat_file
from oml_vit_ext.common.mat_file import read_struct


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    rows = np.array([("a.jpg", 1, 2.5), ("ü.jpg", 2, 3.5)], dtype=[("fname", object), ("class", object), ("x", object)])
    savemat(tmp_path / "x.mat", {"annotations": rows})
    return tmp_path / "x.mat"


def test_a_struct_comes_back(file: Path) -> None:
    assert read_struct(file, "annotations") == {"fname": ["a.jpg", "ü.jpg"], "class": [1, 2], "x": [2.5, 3.5]}


def test_other_files_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.mat is missing"):
        read_struct(tmp_path / "no.mat", "annotations")
    with pytest.raises(ValueError, match=r"x\.mat cannot be read as a MATLAB file with a struct 'other' \(KeyError"):
        read_struct(file, "other")
    savemat(tmp_path / "plain.mat", {"annotations": np.eye(2)})
    with pytest.raises(ValueError, match=r"plain\.mat .*is no struct"):
        read_struct(tmp_path / "plain.mat", "annotations")
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(ValueError, match=r"new\.mat .*NotImplementedError"):
        read_struct(tmp_path / "new.mat", "annotations")


def test_damaged_files_are_an_error_or_plain_content(file: Path) -> None:
    content = file.read_bytes()
    randomly = random.Random(0)
    for _ in range(5):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[randomly.randrange(128, len(content))] = randomly.randrange(256)
        file.write_bytes(damaged)
        try:
            columns = read_struct(file, "annotations")
        except ValueError as error:
            assert str(file) in str(error)
        else:
            assert isinstance(columns, dict)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_a_file_that_ends_its_reader_is_an_error(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(mat_file.sys, "executable", str(killed))
    with pytest.raises(ValueError, match=r"x\.mat cannot be read .*ends the process: -11"):
        read_struct(file, "annotations")
