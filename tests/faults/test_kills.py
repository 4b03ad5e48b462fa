"""SIGKILL at random moments of everything that writes: a short run of ``benchmarks/kill_everything.py``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from helpers import ROOT
from helpers.scripts import printed_by

KILLS = 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_kills_leave_the_old_or_the_new_state(tmp_path: Path):
    """The script itself stops at the first file that is torn, lost or left over."""
    result = tmp_path / "result.json"
    script = str(ROOT / "benchmarks" / "kill_everything")
    printed_by(script, tmp_path, "--kills", str(KILLS), "--to", str(result), "--seed", str(os.getpid()))
    found = json.loads(result.read_text())["kinds"]
    assert len(found) == 7
    for name, counts in found.items():
        assert counts["kills"] == KILLS and counts["old"] + counts["new"] == counts["within"], name
    assert sum(counts["within"] for counts in found.values()) > KILLS, (
        "hardly any kill came while something was written"
    )


def test_the_page_shows_the_committed_result(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from kill_everything import KINDS, table

    result = json.loads((ROOT / "docs/results/reliability.json").read_text())
    assert list(result["kinds"]) == [kind.name for kind in KINDS]
    assert all(counts["torn"] == 0 and counts["old"] + counts["new"] > 0 for counts in result["kinds"].values())
    text = (ROOT / "docs/reliability.md").read_text()
    assert table(result) in text and f"`{result['command'].removesuffix(' --seed 0')}`" in text


def test_the_page_names_tests_that_exist():
    text = (ROOT / "docs/reliability.md").read_text()
    for name in re.findall(r"`([\w/]*test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(Path(name).name)), name
