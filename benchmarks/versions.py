"""The tests with several Pythons and the oldest and newest of everything that pyproject.toml allows.

  make test-versions
  make test-versions VERSIONS=python3.12 BOUNDS=newest TESTS="-n 2 tests/losses"
  python benchmarks/versions.py --pythons python3.10 python3.12 --short   # some files of each folder: minutes

Each pair has an environment of its own, which this script makes and removes again: 7 GB, one after the other. What
was run goes into docs/results/versions.json, a row for each pair: Python, libraries, what ``pip check`` says, how many
tests passed, failed and were skipped. A pair that is run again replaces its row.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Of these the versions are kept; the others follow from them.
LIBRARIES = (
    *("open-metric-learning", "torch", "torchvision", "timm", "pytorch-metric-learning", "pytorch-lightning"),
    *("faiss-cpu", "numpy", "pandas", "scipy", "scikit-learn", "pillow", "safetensors", "pymilvus"),
)

INSTALLED = ".installed"  # in an environment that is complete

# What calls libraries most, of each folder of tests/.
SHORT = {
    "app": ("test_endpoint", "test_service"),
    "commands": ("test_info", "test_main"),
    "common": ("test_array_files", "test_files", "test_mat_file", "test_random_states", "test_safe_pickle"),
    "configs": ("test_irt",),
    "datasets": ("test_convert",),
    "extractors": (
        "test_backbone",
        "test_checkpoints",
        "test_head",
        "test_hybrid",
        "test_irt",
        "test_pca",
        "test_pooling",
    ),
    "images": ("test_reading", "test_sizes"),
    "losses": ("test_contrastive", "test_entropy", "test_irt", "test_matryoshka", "test_memory", "test_pml"),
    "oml_patches": ("test_apply", "test_checkpoint_files", "test_new_transforms", "test_strict_arguments"),
    "optimizers": ("test_adamw_groups",),
    "pictures": ("test_attention", "test_drawing", "report/test_measures"),
    "pipelines": ("test_irt_pipelines",),
    "reranking": ("test_fusion", "test_k_reciprocal", "test_score_file", "test_siamese"),
    "retrieval": (
        *("test_engines", "test_faiss_search", "test_retrieve", "test_search_params", "revisited/test_protocol"),
        *("index/test_embedder", "index/test_search_index", "index/test_storage"),
    ),
    "runs": ("test_run_folder",),
    "samplers": ("test_group_size", "test_mining"),
    "transforms": ("test_dtop", "test_irt", "test_size_groups"),
}

Row = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    known: dict[str, Row] = json.loads(args.results.read_text()) if args.results.is_file() else {}
    failed = []
    for python in args.pythons:
        for bounds in args.bounds:
            with environment(python, bounds, args.environments) as folder:
                row = run(bounds, folder, args)
            name = f"{'.'.join(row['python'].split('.')[:2])} {bounds}"
            known[name] = row
            write(args.results, dict(sorted(known.items())))
            print(f"{name}: {row['passed']} passed, {row['failed']} failed, {row['skipped']} skipped")
            failed += [name] if row["failed"] or row["pip_check"] != "No broken requirements found." else []
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}; see {args.results}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", required=True, help="commands, e.g. python3.10")
    parser.add_argument("--bounds", nargs="+", choices=("lowest", "newest"), default=["lowest", "newest"])
    parser.add_argument("--tests", default="-n 2", help="arguments of pytest")
    parser.add_argument("--lowest-tests", default="", help="further ones with the oldest libraries")
    parser.add_argument("--short", action="store_true", help="some files of each folder instead of the whole suite")
    parser.add_argument("--environments", type=Path, help="folder to keep the environments in, for the next call")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/versions.json")
    return parser.parse_args()


@contextmanager
def environment(python: str, bounds: str, kept: Path | None) -> Iterator[Path]:
    """One with our package in it: a temporary one, or one that is kept and perhaps there already."""
    if kept is not None and (kept / f"{python}-{bounds}" / INSTALLED).is_file():
        yield kept / f"{python}-{bounds}"
        return
    with (
        tempfile.TemporaryDirectory(prefix=".venv-", dir=ROOT)
        if kept is None
        else nullcontext(kept / f"{python}-{bounds}") as folder
    ):
        print(f"{python}, {bounds}: installing into {folder}", flush=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        constraints = ["-c", ROOT / "constraints" / "lowest.txt"] if bounds == "lowest" else []
        # With the lower bounds pip was still trying versions after twenty minutes; uv takes one.
        subprocess.run([*pip_of(Path(folder)), "install", "-q", "uv"], check=True)
        uv = [Path(folder) / "bin" / "uv", "pip", "install", "-q", "--python", Path(folder) / "bin" / "python"]
        subprocess.run([*uv, "-e", f"{ROOT}[dev]", *constraints], check=True)
        Path(folder, INSTALLED).touch()
        yield Path(folder)


def pip_of(folder: Path) -> list[Any]:
    return [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]


def run(bounds: str, folder: Path, args: argparse.Namespace) -> Row:
    """Run the tests in an environment, and tell what was there."""
    inside, pip = folder / "bin" / "python", pip_of(folder)
    said = subprocess.run([*pip, "check"], capture_output=True, text=True).stdout
    report = folder / "report.xml"
    tests = shlex.split(args.tests) + (shlex.split(args.lowest_tests) if bounds == "lowest" else [])
    named = [part for part in shlex.split(args.tests) if part.startswith("tests")]
    if args.short:
        tests += [f"tests/{folder}/{name}.py" for folder, names in SHORT.items() for name in names]
    started = time.perf_counter()
    # What the tests print is for who waits; failures are in the report.
    subprocess.run([inside, "-m", "pytest", f"--junitxml={report}", *tests], cwd=ROOT)
    return {
        "python": output(inside, "-c", "import platform; print(platform.python_version())"),
        "libraries": versions(pip),
        "pip_check": "; ".join(said.split("\n")).strip("; "),
        "selection": "short" if args.short else " ".join(named) or "whole",
        "pytest": " ".join(tests),
        **counts(report),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "commit": output("git", "-C", ROOT, "rev-parse", "--short", "HEAD"),
    }


def versions(pip: list[Any]) -> dict[str, str]:
    installed = {one["name"].lower(): one["version"] for one in json.loads(output(*pip, "list", "--format=json"))}
    return {name: installed[name] for name in LIBRARIES}


def counts(report: Path) -> Row:
    """How many tests passed, failed and were skipped, and the names of those that failed."""
    if not report.is_file():
        raise SystemExit("pytest wrote no report: it did not start, see what it printed.")
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "passed": len(cases) - len(bad) - len(skipped),
        "failed": len(bad),
        "skipped": len(skipped),
        "failures": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }


def write(file: Path, content: Row) -> None:
    """As a whole, without importing the package: this script needs nothing but Python."""
    unfinished = file.with_suffix(".partial")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(file)
    print(f"written: {file}")


def output(*command: Any) -> str:
    return subprocess.run(list(command), check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    if shutil.disk_usage(ROOT).free < 10e9:
        raise SystemExit(f"{ROOT} has less than 10 GB free, expected room for an environment with torch.")
    main()
