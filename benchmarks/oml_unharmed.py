"""OML's own tests without and with this package: which ones end differently.

  git clone --branch v4.0.0 https://github.com/OML-Team/open-metric-learning
  python benchmarks/oml_unharmed.py open-metric-learning/tests

Nothing is fetched: tests that want data or weights from the network fail in both runs, and do not count. Tests that
want a YAML file of each registered name inside OML's own package differ, since ours are in ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=Path, help="OML's folder tests/")
    parser.add_argument("arguments", nargs="*", help="more arguments for pytest, after --")
    args = parser.parse_args()
    if not args.tests.is_dir():
        parser.error(f"there is no folder {args.tests}")
    without = outcomes(args.tests, [], args.arguments)
    ours = outcomes(args.tests, ["-p", "oml_vit_ext"], args.arguments)
    different = sorted(test for test in without | ours if without.get(test) != ours.get(test))
    for test in different:
        print(f"{test}: {without.get(test, 'not there')} without, {ours.get(test, 'not there')} with oml-vit-ext")
    passed = sum(outcome == "passed" for outcome in without.values())
    print(f"{len(without)} tests, {passed} pass without oml-vit-ext; {len(different)} end differently with it.")
    return bool(different)


def outcomes(tests: Path, plugin: list[str], arguments: list[str]) -> dict[str, str]:
    """How each test ends: passed, failed, error or skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *plugin, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += ["--continue-on-collection-errors", f"{tests.name}/test_oml", *arguments]
        # From the folder above: OML's tests import each other as ``tests.…``.
        subprocess.run(command, cwd=tests.absolute().parent, check=False)
        if not report.is_file():
            sys.exit("pytest left no report: see its words above.")
        cases = ET.parse(report).getroot().iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ET.Element) -> str:
    return next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")


if __name__ == "__main__":
    sys.exit(main())
