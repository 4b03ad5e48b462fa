"""``oml-vit-ext demo``"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.command_line import fails, succeeds

SCRIPT = "import sys, pathlib\nprint('called with', sys.argv[1:], pathlib.Path(sys.path[0]).name)\n"


def test_it_runs_the_script_of_the_source_it_stands_in(in_tmp_path: Path):
    Path("examples").mkdir()
    Path("examples/demo.py").write_text(SCRIPT)
    printed = succeeds("demo", "--iterations", "3", "memory_size=0", "--output", "o")
    assert "called with ['--output', 'o', '--iterations', '3', 'memory_size=0'] examples" in printed


def test_without_the_source_it_says_what_to_do(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = SimpleNamespace(origin=str(in_tmp_path / "site" / "oml_vit_ext" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed)
    assert "come with the source, not with pip" in fails("demo")
