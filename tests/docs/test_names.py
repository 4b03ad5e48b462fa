"""Each registered name has its page, whose words are written, and each page stands for a registered name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import ROOT
from helpers.docs import script

NAMES = ROOT / "docs/names"
REGISTERED = script("compose_names").registered()
HEADINGS = ["In YAML", "In Python", "Arguments", "Measured here", "When not to use it"]


def test_each_registered_name_has_its_page_and_each_page_its_name():
    pages = {page.relative_to(NAMES).with_suffix("").as_posix() for page in NAMES.rglob("*.md")} - {"README"}
    assert "losses/irt" in REGISTERED and len(REGISTERED) > 10
    missing, stale = REGISTERED.keys() - pages, pages - REGISTERED.keys()
    assert not missing, f"no page for {sorted(missing)}: python docs/compose_names.py"
    assert not stale, f"pages of nothing that is registered: {sorted(stale)}"


@pytest.mark.parametrize("name", REGISTERED)
def test_a_page_is_complete(name: str):
    text = (NAMES / f"{name}.md").read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert script("compose_names").UNWRITTEN not in text
    assert f"name: {name.split('/')[1]}\n" in text, "its YAML says another name"
    thing = REGISTERED[name]
    (shown,) = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert shown.split(".")[-1] == thing.__name__ and thing.__module__.startswith(shown.rsplit(".", 1)[0])


def test_a_new_name_gets_a_page_to_complete(tmp_path: Path):
    class New:
        """An idea."""

    text = script("compose_names").skeleton("losses/new", New)
    assert "An idea." in text and "criterion:\n  name: new\n" in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
