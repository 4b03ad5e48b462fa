"""The figures of ``docs/reliability.md`` are those of the files that the commands wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers import ROOT

RESULTS = ROOT / "docs" / "results"
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def results(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_cases_of_each_part():
    parts = results("fuzzing")
    files = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "fuzz").glob("test_*.py")}
    assert parts and parts.keys() <= files
    assert all(f"`{name}`" in TEXT for name in files), "which were not run is said"
    for name, row in parts.items():
        assert f"| `{name}` | {row['cases']:,} | {row['tests']} | {row['failed']} |" in TEXT
    assert f"| all | {sum(row['cases'] for row in parts.values()):,} |" in TEXT


def test_long_runs():
    found = results("endurance")
    rows = []
    if "autocast" in found:
        n, bad = found["autocast"]["steps_of_each"], found["autocast"]["not_finite"]
        rows.append(f"| {n:,} autocast steps of each of {len(bad)} losses and types | {sum(bad.values())} not finite |")
    if "duplicates" in found:
        row = found["duplicates"]
        rows.append(f"| {row['batches']:,} batches of exact and near duplicates | {row['not_finite']} not finite |")
    for name, what in (("memory", "steps with a full memory"), ("pairs", "re-ranked pairs")):
        if name in found:
            row = found[name]
            n = row["pairs" if name == "pairs" else "steps"]
            rows.append(f"| {n:,} {what} | {row['grown_mb']} MB, {row['grown_files']} files |")
    assert rows
    for row in rows:
        assert row in TEXT


@pytest.mark.parametrize("name", sorted(results("versions")))
def test_versions(name: str):
    row = results("versions")[name]
    counted = f"{row['passed']:,} passed, {row['failed']} failed, {row['skipped']} skipped"
    libraries = ", ".join(f"{library} {row['libraries'][library]}" for library in ("torch", "timm", "numpy"))
    assert f"| {name} | {libraries} | {row['selection']} | {counted} |" in TEXT
    assert row["pip_check"] == "No broken requirements found."


def test_the_short_selection_takes_files_of_each_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from versions import SHORT

    folders = {path.name for path in (ROOT / "oml_vit_ext").iterdir() if (path / "__init__.py").is_file()}
    assert SHORT.keys() == {*folders, "configs", "pipelines"}
    missing = [
        name
        for folder, names in SHORT.items()
        for name in names
        if not (ROOT / "tests" / folder / f"{name}.py").is_file()
    ]
    assert not missing


def test_known_faults_of_the_libraries():
    found = results("audit")
    n, answered, faults = found["libraries"], found["answered"], found["faults"]
    assert answered + len(found["not_answered"]) == n
    assert f"got an answer for {answered} of {n} libraries, {len(faults)} of them with known faults" in TEXT
    assert f"({found['date']}, `docs/results/audit.json`)" in TEXT
    assert all(name.split()[0] in TEXT for name in [*faults, *found["not_answered"]])
