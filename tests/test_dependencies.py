"""What ``pyproject.toml`` declares is what the package imports, and the constraints are its lower bounds."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers import ROOT

# Part of Python from 3.11 on; before that, pytest brings the same under another name.
TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
PROJECT: dict[str, Any] = TOML.loads((ROOT / "pyproject.toml").read_text())["project"]

REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
# What single features need, each imported only where it is used.
EXTRA = [
    Requirement(text)
    for extra in ("pipelines", "milvus", "ray", "heic", "app", "demo")
    for text in PROJECT["optional-dependencies"][extra]
]
# Modules that only OML's pipelines lead to, where Lightning has been imported.
INSIDE_PIPELINES = {"oml_patches/checkpoint_files.py", "oml_patches/run_checkpoints.py"}
# The server of the app, which only its start leads to.
INSIDE_APP = {"app/endpoint.py"}
# Modules that commands import when they run, with Hydra.
INSIDE_PIPELINES |= {
    f"commands/{name}.py"
    for name in (
        *("absolute_paths", "before_and_after", "choices", "figures", "hydra_runs", "launching", "models"),
        *("reranker_config", "retrieved_images", "revisited_evaluation"),
        *("wrong_arguments", "wrong_data", "wrong_machine"),
    )
}
PROVIDERS = packages_distributions()


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(node: ast.AST, in_function: bool = False) -> Iterator[tuple[str, bool]]:
    """The libraries that a module imports, each with whether a function does it."""
    in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=rest):
            for child in rest:  # what stands under it is imported by type checkers only
                yield from _imports(child, in_function)
            return
        case ast.Import(names=names):
            yield from ((name.name.partition(".")[0], in_function) for name in names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module.partition(".")[0], in_function
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module))]):
            yield module.partition(".")[0], in_function
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, in_function)


def _imported(file: Path, in_function: bool | None = None) -> set[str]:
    """Distributions, by their names in the package index, that a file needs at import time, later, or ever."""
    names = {name for name, lazy in _imports(ast.parse(file.read_text())) if in_function in (None, lazy)}
    foreign = names - sys.stdlib_module_names - {"oml_vit_ext", "hydra_plugins"}
    # Python 3.10 knows only those that say so; the others are called like their module.
    return {canonicalize_name(PROVIDERS.get(name, [name])[0]) for name in foreign}


def _names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("file", _files("oml_vit_ext"), ids=lambda file: str(file.relative_to(ROOT)))
def test_each_import_is_declared(file: Path):
    is_inside = str(file.relative_to(ROOT / "oml_vit_ext")) in INSIDE_PIPELINES | INSIDE_APP
    there = _names(REQUIRED + (EXTRA if is_inside else []))
    assert _imported(file, in_function=False) <= there, "needed to import the module"
    assert _imported(file, in_function=True) <= _names(REQUIRED + EXTRA), "needed to call a function"


def test_the_imports_of_the_hydra_plugin_come_with_the_pipelines():
    assert set().union(*map(_imported, _files("hydra_plugins"))) <= _names(EXTRA)


def test_each_declared_library_is_imported():
    imported = set().union(*map(_imported, _files("oml_vit_ext")))
    assert _names(REQUIRED) <= imported | {"torchvision"}


LOWEST = [Requirement(line) for line in (ROOT / "constraints" / "lowest.txt").read_text().splitlines()[1:]]


def _lowest(python: str) -> dict[str, Version]:
    there = [r for r in LOWEST if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len({r.name for r in there}) == len(there), "twice the same library"
    return {r.name: Version(str(r.specifier).removeprefix("==")) for r in there}


@pytest.mark.parametrize("python", ["3.10", "3.11"])
def test_the_constraints_are_the_lower_bounds(python: str):
    bounds = {
        requirement.name: Version(bound.version)
        for requirement in REQUIRED + EXTRA
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    assert _lowest(python) == bounds


def test_a_newer_python_raises_the_constraints_only_where_they_say_so():
    oldest, newest = _lowest("3.10"), _lowest("3.12")
    marked = {r.name for r in LOWEST if r.marker is not None}
    assert oldest.keys() == newest.keys() and marked
    assert {name for name in oldest if newest[name] != oldest[name]} == marked
    assert all(newest[name] >= oldest[name] for name in oldest)


def test_the_constraints_of_development_fit():
    """They hold each library of ``.[dev]``, in a version that pyproject.toml allows, and nothing of one machine."""
    lines = (ROOT / "constraints" / "dev.txt").read_text().splitlines()
    pinned = {canonicalize_name(r.name): r for r in map(Requirement, (line for line in lines if line[0] != "#"))}
    development = map(Requirement, PROJECT["optional-dependencies"]["dev"])
    for wanted in [*REQUIRED, *EXTRA, *development]:
        if wanted.name != "oml-vit-ext":
            name = canonicalize_name(wanted.name)
            assert name in pinned or name == "setuptools", f"no {name}: make constraints"
            assert name not in pinned or wanted.specifier.contains(str(pinned[name].specifier).removeprefix("=="))
    assert all(r.url is None and str(r.specifier).startswith("==") and "+" not in str(r) for r in pinned.values())
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_each_library_has_a_lower_bound():
    assert not [r.name for r in REQUIRED if not any(bound.operator == ">=" for bound in r.specifier)]
