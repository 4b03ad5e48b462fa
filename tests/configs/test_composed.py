"""``docs/configs/`` shows the main runs as they are composed today."""

from __future__ import annotations

import pytest

from helpers import ROOT


def test_the_composed_configs_are_fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from compose_configs import TARGET, composed_runs

    written = {path.name: path.read_text() for path in TARGET.glob("*.yaml")}
    assert written == composed_runs(), "call `make configs`"
    assert all(text.startswith("# oml-vit-ext ") and str(ROOT) not in text for text in written.values())
