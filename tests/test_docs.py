"""Every snippet of the README and of ``docs/`` does what it says."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list:
    return [
        pytest.param(text, id=f"{path.name}-{i}")
        for path in DOCS
        for i, (kind, text) in enumerate(BLOCK.findall(path.read_text()))
        if kind == language
    ]


def test_there_is_something_to_test():
    assert _blocks("python") and _blocks("yaml") and _blocks("bash")


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_runs(code: str):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_yaml_builds(text: str):
    cfg = yaml.safe_load(text)
    builders = {"extractor": get_extractor_by_cfg, "criterion": get_criterion_by_cfg}
    assert set(cfg) - {"defaults"}
    for key, part in cfg.items():
        if key == "extractor":
            part["args"]["weights"] = None  # a download otherwise
        builder = get_transforms_by_cfg if key.startswith("transforms") else builders[key]
        assert builder(part) is not None


@pytest.mark.parametrize("text", _blocks("bash"))
def test_commands_exist(text: str):
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[:2] == ["pip", "install"] or words[0] in ("git", "cd"):
            continue  # what they need is not here: a package index, a clone
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "python" and "--config-name" in words:
            assert (ROOT / words[1]).is_file()
            with initialize_config_module("oml_vit_ext.configs", version_base=None):
                compose(words[3], words[4:])
        else:
            # A script, or a module and its command.
            n = 4 if words[1] == "-m" else 2
            assert words[0] == "python" and (n == 4 or (ROOT / words[1]).is_file()), line
            text_of_help = _help(*words[1:n])
            unknown = [w for w in words[n:] if w.startswith("--") and w.split("=")[0] not in text_of_help]
            assert not unknown, f"{words[1]} does not know {unknown}"


@functools.cache
def _help(*command: str) -> str:
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert os.path.exists(path.parent / target), target
