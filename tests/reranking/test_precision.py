"""Half precision where it is faster, float32 where it is not, and one line in the log about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.photos import small_dataset, small_model, some_results
from oml_vit_ext.reranking import STIRReranker, precision

CPU = torch.device("cpu")


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    precision._say_once.cache_clear()


def test_a_cpu_without_units_computes_in_float32_and_says_so_once(tmp_path: Path, without_units: None, caplog) -> None:
    model, dataset = small_model(), small_dataset(tmp_path)
    results = some_results(dataset)
    seen = []
    model.head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    full = STIRReranker(4, model, 0, 8).process(results, dataset)
    halves = [STIRReranker(4, model, 0, 8, use_fp16=True).process(results, dataset) for _ in range(2)]
    for half in halves:
        for found, expected in zip(half.distances, full.distances, strict=True):
            assert torch.equal(found, expected)
    assert seen and not any(seen)
    assert caplog.text.count("this CPU has no units for bfloat16") == 1


def test_scores_on_file_are_known_by_the_precision_that_was_used(tmp_path: Path, without_units: None) -> None:
    model, dataset = small_model(), small_dataset(tmp_path)
    results = some_results(dataset)
    first = STIRReranker(4, model, 0, 8, scores_file=tmp_path / "scores.npz")
    first.process(results, dataset)
    second = STIRReranker(4, model, 0, 8, use_fp16=True, scores_file=tmp_path / "scores.npz")
    second.process(results, dataset)
    assert second.last_stats.pairs == 0 and second.last_stats.reused > 0


def test_a_cpu_with_units_computes_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    model, dataset = small_model(), small_dataset(tmp_path)
    seen = []
    model.head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    STIRReranker(4, model, 0, 8, use_fp16=True).process(some_results(dataset), dataset)
    assert seen and all(seen)
    assert "bfloat16" not in caplog.text


def test_only_a_cpu_is_asked(without_units: None, caplog: pytest.LogCaptureFixture) -> None:
    assert precision.pays(True, torch.device("cuda"))
    assert not precision.pays(False, CPU) and "bfloat16" not in caplog.text
    assert not precision.pays(True, CPU)


@pytest.mark.parametrize(
    ("machine", "units"), [("x86_64", {"avx512_bf16"}), ("AMD64", {"amx_tile"}), ("x86_64", set())]
)
def test_the_units_of_x86(monkeypatch: pytest.MonkeyPatch, machine: str, units: set[str]) -> None:
    """AVX512 alone is not enough, though oneDNN would compute with it."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in units, raising=False)
    assert precision.has_bf16_units() == bool(units)
