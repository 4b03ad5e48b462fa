"""The runs of benchmarks/endurance.py, short: what is to stay finite and flat there does so from the first steps on."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from helpers import ROOT


@pytest.fixture()
def endurance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("endurance")


def test_losses_stay_finite(endurance: ModuleType):
    found = endurance.autocast(20)
    assert len(found["not_finite"]) == 2 * len(endurance.LOSSES) and not any(found["not_finite"].values())
    assert endurance.duplicates(20) == {"batches": 60, "not_finite": 0}


linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")


@linux
def test_memory_files_and_objects_stay_flat(endurance: ModuleType):
    for found in (endurance.memory(60), endurance.pairs(120)):
        assert len(found["resident_mb"]) == endurance.N_POINTS
        assert found["grown_mb"] < 30 and found["grown_files"] == 0 and found["grown_objects"] < 10
    assert found["pairs"] >= 120


@linux
def test_what_leaks_is_seen_in_runs_of_that_length(endurance: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """A tensor of each training step, a file of each call of the re-ranker: too little for the memory to show it."""
    tensors, files = [], []

    class Leaking(endurance.IRTLoss):
        def forward(self, features: Tensor, labels: Tensor) -> Tensor:
            tensors.append(features.detach())
            return super().forward(features, labels)

    class KeepingFilesOpen(endurance.STIRReranker):
        def process(self, *args: Any, **kwargs: Any) -> Any:
            files.append(os.open(os.devnull, os.O_RDONLY))
            return super().process(*args, **kwargs)

    monkeypatch.setattr(endurance, "IRTLoss", Leaking)
    monkeypatch.setattr(endurance, "STIRReranker", KeepingFilesOpen)
    assert endurance.memory(60)["grown_objects"] > 20
    assert endurance.pairs(120)["grown_files"] > 10
    for file in files:
        os.close(file)
