"""Known faults of the newest releases among constraints/dev.txt, where pip-audit's service cannot be reached.

  python constraints/audit_newest.py URL     # of PyPI's JSON interface; writes docs/results/audit.json

``pip-audit`` asks PyPI for each library at its version. Mirrors that keep PyPI's page of each library, without those of
its older versions, answer for the newest release alone: this asks them, and names the libraries that are left open.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVICE = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else ""


def main() -> None:
    if not SERVICE:
        raise SystemExit("Expected the address of PyPI's JSON interface: make audit-newest SERVICE=URL")
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints/dev.txt").read_text(), re.MULTILINE))
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(pins, pool.map(faults_of, pins, pins.values()), strict=True))
    known = {f"{name} {pins[name]}": faults for name, faults in answers.items() if faults}
    open_ones = [f"{name} {pins[name]}" for name, faults in answers.items() if faults is None]
    result = {
        "date": date.today().isoformat(),
        "libraries": len(pins),
        "answered": len(pins) - len(open_ones),
        "faults": known,
        "not_answered": open_ones,
    }
    (ROOT / "docs/results/audit.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['answered']} of {len(pins)} libraries answered, {len(known)} with known faults: {', '.join(known)}")
    sys.exit(bool(known))


def faults_of(name: str, version: str) -> list[str] | None:
    """Names of the faults, or ``None`` where nothing is known of this version."""
    for page in (f"{name}/{version}", name):
        try:
            with urllib.request.urlopen(f"{SERVICE}/{page}/json", timeout=30) as answer:
                content: dict[str, Any] = json.load(answer)
        except (urllib.error.URLError, ValueError):
            continue
        if content["info"]["version"] == version:
            return [
                f"{fault['id']} ({', '.join(fault['aliases'])}): {fault['summary'] or fault['details'][:200]}"
                for fault in content["vulnerabilities"]
                if not fault.get("withdrawn")
            ]
    return None


if __name__ == "__main__":
    main()
