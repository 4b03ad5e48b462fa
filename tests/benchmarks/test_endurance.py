"""The runs of benchmarks/endurance.py, short: what is to stay finite and flat there does so from the first steps on."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from helpers import ROOT


@pytest.fixture()
def endurance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("endurance")


def test_losses_stay_finite(endurance: ModuleType):
    found = endurance.autocast(20)
    assert len(found["not_finite"]) == 2 * len(endurance.LOSSES) and not any(found["not_finite"].values())
    assert endurance.duplicates(20) == {"batches": 60, "not_finite": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")
def test_memory_and_files_stay_flat(endurance: ModuleType):
    for found in (endurance.memory(60), endurance.pairs(120)):
        assert len(found["resident_mb"]) == endurance.N_POINTS
        assert found["grown_mb"] < 30 and found["grown_files"] == 0
    assert found["pairs"] >= 120
