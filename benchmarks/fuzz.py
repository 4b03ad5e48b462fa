"""The fuzzing of ``tests/fuzz`` with many new cases, counted: ``make fuzz``.

Each file of that folder is a part. docs/results/fuzzing.json gets its cases, its seconds, and how many of its tests
failed; a part that is run again replaces its row. ``--scale 0.1`` tries a tenth of the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from json_file import write_json

ROOT = Path(__file__).parents[1]
PARTS = sorted(file.stem.removeprefix("test_") for file in (ROOT / "tests/fuzz").glob("test_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of cases")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/fuzzing.json")
    args = parser.parse_args()
    os.environ.update(HYPOTHESIS_PROFILE="long", FUZZ_SCALE=str(args.scale))
    os.chdir(ROOT)
    failed = 0
    for part in args.parts:
        row = run(part)
        failed += row["failed"]
        with FileLock(f"{args.results}.lock"):  # calls for other parts may share the work
            known = json.loads(args.results.read_text()) if args.results.is_file() else {}
            write_json(args.results, dict(sorted({**known, part: row}.items())))
        print(f"{part}: {row['cases']} cases, {row['seconds']} s, {row['failed']} of {row['tests']} tests failed")
    if failed:
        raise SystemExit(f"{failed} tests failed: their smallest failing cases are above.")


class Outcomes:
    """A plugin of pytest that counts tests."""

    def __init__(self) -> None:
        self.tests = self.failed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.tests += report.when == "call"
        self.failed += report.failed


def run(part: str) -> dict[str, int]:
    outcomes, started = Outcomes(), time.perf_counter()
    # Without a cache and without xdist: the cases are counted in this process.
    pytest.main([f"tests/fuzz/test_{part}.py", "-p", "no:cacheprovider", "-p", "no:xdist"], plugins=[outcomes])
    from helpers.fuzzing import COUNTS  # pytest knows where

    return {
        "cases": COUNTS[f"test_{part}"],
        "seconds": round(time.perf_counter() - started),
        "tests": outcomes.tests,
        "failed": outcomes.failed,
    }


if __name__ == "__main__":
    main()
