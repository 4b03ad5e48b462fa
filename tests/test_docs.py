"""Every snippet of the README and of ``docs/`` does what it says, and every link leads somewhere."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
import yaml
from hydra import compose, initialize_config_module
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg, get_pairwise_model_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import DEMO_DATA, ROOT
from oml_vit_ext.commands.hydra_runs import composed
from oml_vit_ext.commands.main import app
from oml_vit_ext.oml_patches.search_from_config import search_of

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "examples/demo_data/README.md", "examples/demo_weights/README.md")
PAGES = [*DOCS, *(ROOT / name for name in OUTSIDE)]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(language: str) -> list:
    return [
        pytest.param(text, id=f"{_name(path)}-{i}")
        for path in DOCS
        for i, (kind, text) in enumerate(BLOCK.findall(path.read_text()))
        if kind == language
    ]


def test_there_is_something_to_test():
    assert _blocks("python") and _blocks("yaml") and _blocks("bash")


def _in_a_new_process(page: Any) -> bool:
    """What is promised of an import has to hold in a process that has not made it yet; Milvus starts threads."""
    return page.id.startswith(("README.md", "docs/faq.md")) or "Milvus" in page.values[0]


@pytest.mark.parametrize("code", [page for page in _blocks("python") if _in_a_new_process(page)])
def test_python_runs_in_a_new_process(code: str):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _optimizer(cfg: dict) -> torch.optim.Optimizer:
    return get_optimizer_by_cfg(cfg, params=[torch.nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize("code", [page for page in _blocks("python") if not _in_a_new_process(page)])
def test_python_runs(code: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_yaml_builds(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    cfg = yaml.safe_load(text)
    builders: dict[str, Callable[..., Any]] = {
        "extractor": get_extractor_by_cfg,
        "criterion": get_criterion_by_cfg,
        "optimizer": _optimizer,
        "pairwise_model": get_pairwise_model_by_cfg,
        "postprocessor": get_postprocessor_by_cfg,
        "sampler": lambda part: get_sampler_by_cfg(part, labels=_labels(), label2category=None),
        "faiss_search": search_of,
    }
    assert set(cfg) - {"defaults"}
    for key, part in cfg.items():
        _without_downloads(part)
        builder = get_transforms_by_cfg if key.startswith("transforms") else builders[key]
        assert builder(part) is not None


def _labels() -> Any:
    df = pd.read_csv("examples/photos/df.csv")
    return df[df.split == "train"].label.to_numpy()


def _without_downloads(part: Any) -> None:
    """Random weights in place of those that are named."""
    if isinstance(part, dict):
        for value in part.values():
            _without_downloads(value)
        if "weights" in part:
            part["weights"] = None


@pytest.mark.parametrize("text", _blocks("bash"))
def test_commands_exist(text: str):
    for words in _commands(text):
        if words[:2] == ["pip", "install"] or words[0] in ("git", "cd", "curl", "export"):
            continue  # what they need is not here: a package index, a clone, a server
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
            continue
        if words[0] == "oml-vit-ext":
            _check_command(words[1:])
            continue
        script = _script(words)
        assert words[0] == "python" and (words[1] == "-m" or (ROOT / words[1]).is_file()), words
        if "--config-name" in words:
            at = words.index("--config-name")
            with initialize_config_module("oml_vit_ext.configs", version_base=None):
                compose(words[at + 1], [w for w in words[at + 2 :] if not w.startswith("--")])
        if script in _parsed():
            options = [w for w in words[1 + len(script) :] if w.startswith("--")]
            unknown = [w for w in options if w.split("=")[0] not in _helps()[script]]
            assert not unknown, f"{' '.join(script)} does not know {unknown}"


def _check_command(words: list[str]) -> None:
    words = ["cpu" if word == "cuda" else word for word in words]  # a device that is not here is an error
    """The command is there, takes these arguments, and its config composes with these overrides."""
    commands = typer.main.get_command(app).commands
    given = commands[words[0]].make_context(words[0], words[1:]).params
    config = str(given.get("config") or given.get("config_name") or given.get("reranker") or "")
    images = given.get("images")
    overrides = given.get("overrides") or [w for w in (images if isinstance(images, list | tuple) else ()) if "=" in w]
    if "/" in config and not config.startswith("runs/"):
        composed(config, list(overrides))


def _script(words: list[str]) -> tuple[str, ...]:
    """A script, a script and its command, or a module and its command, of a line that begins with ``python``."""
    return tuple(words[1 : 4 if words[1] == "-m" else 3 if words[1] == "examples/search.py" else 2])


@functools.cache
def _parsed() -> list[tuple[str, ...]]:
    """The scripts in all blocks that read their arguments themselves; the others leave that to Hydra."""
    lines = [words for block in _blocks("bash") for words in _commands(block.values[0]) if words[0] == "python"]
    return sorted({_script(w) for w in lines if "--config-name" not in w or w[1] == "examples/search.py"})


def test_a_script_of_ones_own_finds_our_configs(tmp_path: Path):
    """The block that is not run above, as it would train: here it prints its config."""
    [text] = [code for kind, code in BLOCK.findall((ROOT / "docs/howto/train.md").read_text()) if kind == "py"]
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, "script.py", "--cfg", "job", "iterations=7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "iterations: 7\n" in done.stdout and "name: augs_irt" in done.stdout, done.stderr


def _commands(text: str) -> list[list[str]]:
    text = re.sub(r"^[A-Z_]+=\S+ ", "", text, flags=re.MULTILINE)  # variables of the environment
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


@functools.cache
def _helps() -> dict[tuple[str, ...], str]:
    texts = _run([[*script, "--help"] for script in _parsed()], ROOT).split("\n$ ")[1:]
    return dict(zip(_parsed(), texts, strict=True))


# One process for several commands: starting Python with OML takes longer than most of them.
RUN = r"""
import json, os, runpy, sys
for command in json.loads(sys.argv[1]):
    print("\n$", *command, flush=True)
    module, sys.argv = command[0] == "-m", command[command[0] == "-m":]
    sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
    try:
        (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
"""


def _run(commands: list[list[str]], folder: Path) -> str:
    """What Python prints for these command lines, run in ``folder``."""
    words = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_five_commands_from_photos_to_hits(tmp_path: Path):
    """The README's commands, one after the other, with a small model, fewer images and two iterations."""
    section = (ROOT / "README.md").read_text().split("five commands\n")[1].split("\n## ")[0]
    commands = [words for words in _commands(BLOCK.search(section)[2]) if words[0] == "oml-vit-ext"]
    assert [words[1] for words in commands] == ["convert", "train", "index", "query", "app"]
    df = pd.read_csv(DEMO_DATA / "df.csv")
    for emoji in sorted(df.label_name.unique())[:6]:
        (tmp_path / "photos" / emoji).mkdir(parents=True)
        for i, path in enumerate(df[df.label_name == emoji].path):
            shutil.copy(DEMO_DATA / path, tmp_path / "photos" / emoji / f"{i}.jpg")
    shutil.copy(next((tmp_path / "photos").rglob("*.jpg")), tmp_path / "cat.jpg")
    small = [
        "arch=vit_tiny_r_s16_p8_224",
        *(f"+timm_args.{size}" for size in ("img_size=48", "patch_size=2", "depth=6")),
        *(f"images.{size}" for size in ("train_resize=52", "test_resize=48", "crop=48")),
        f"pretrained={ROOT}/examples/demo_weights/vit_tiny_emoji.safetensors",
        *("num_workers=0", "accelerator=cpu", "iterations=2", "valid_iterations=2"),
    ]
    given = [["-m", "oml_vit_ext", *words[1:], *(small if words[1] == "train" else [])] for words in commands[:4]]
    printed = _run(given, tmp_path)
    splits = pd.read_csv(tmp_path / "photos/df.csv").groupby("split").label.nunique()
    assert dict(splits) == {"train": 4, "validation": 2}
    assert (tmp_path / "my_run/checkpoints/best.ckpt").is_file()
    assert json.loads((tmp_path / "photo_index/manifest.json").read_text())
    # The query is a copy of an image of the index: found first, at no distance.
    first = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["1"])
    assert (
        float(first[1]) < 1e-3 and (tmp_path / "photos" / first[2]).read_bytes() == (tmp_path / "cat.jpg").read_bytes()
    )
    assert (tmp_path / "search.png").is_file()


def test_make_demo_and_make_test_are_the_two_commands():
    commands = [words for text in BLOCK.findall((ROOT / "README.md").read_text()) for words in _commands(text[1])]
    assert [words[1] for words in commands if words[0] == "make"] == ["demo", "test"]


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", path.read_text())):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file) if file else path
        assert os.path.exists(there), target
        assert not anchor or anchor in _anchors(there), f"{target}: expected one of {sorted(_anchors(there))}"


@pytest.mark.parametrize("path", [p for p in DOCS if p.parent != ROOT and p.name != "README.md"], ids=_name)
def test_every_page_is_in_the_list_of_pages(path: Path):
    names = ROOT / "docs/names"
    folder = names if names in path.parents else ROOT / "docs"
    assert f"]({path.relative_to(folder)})" in (folder / "README.md").read_text()


def test_the_architecture_names_every_folder_and_file():
    """``docs/architecture.md`` has a section for each folder of the package, and in it a line for each file."""
    named = set()
    folder = ""
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        if heading := re.match(r"##+ `([\w/]+)/`", line):
            folder = heading[1]
        if file := re.match(r"- `(\w+\.py)`: \S", line):
            named.add(f"{folder}/{file[1]}")
    package = ROOT / "oml_vit_ext"
    modules = {path.relative_to(package).as_posix() for path in package.glob("*/**/*.py")}
    assert named == {name for name in modules if not name.endswith("__init__.py")}
