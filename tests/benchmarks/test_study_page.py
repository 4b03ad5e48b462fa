"""``docs/study.md`` and the README's table show what is in ``docs/results/study*.json``, and judge it soberly."""

from __future__ import annotations

import re

import pytest

from helpers import ROOT


@pytest.fixture()
def page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import draw_study

    return draw_study


def test_tables_are_those_of_the_results(page):
    study = page.Study()
    assert study.rows and study.choices
    for path in page.PAGES:
        text = path.read_text()
        assert "<!-- end -->" in text
        assert page.filled(text, study) == text, f"{path.name} is stale: call `make study-figures`"


def test_figures_are_those_of_the_results(page):
    shown = set(re.findall(r"images/study/(\w+)\.svg", (ROOT / "docs/study.md").read_text()))
    assert shown == set(page.figures()) == {path.stem for path in page.FIGURES.glob("*.svg")}
    for name in shown:
        text = (page.FIGURES / f"{name}.svg").read_text()
        assert page.Study().digest() in text, f"{name}.svg is stale: call `make study-figures`"
        assert len(text) < 500_000


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [([0.02, 0.03, 0.025], "holds"), ([-0.02, -0.03, -0.025], "does not"), ([0.05, -0.04, 0.01], "cannot tell")],
)
def test_a_verdict_needs_two_standard_errors(page, gaps: list[float], verdict: str):
    rows = [{"seed": i, "cmc1": 0.8 + 0.1 * i + gap} for i, gap in enumerate(gaps)]
    others = [{"seed": i, "cmc1": 0.8 + 0.1 * i} for i in range(len(gaps))]
    text, found = page.compare(rows, others, "cmc1")
    assert found == verdict and f"{100 * sum(gaps) / len(gaps):+.1f} points" in text and "3 seeds" in text


def test_one_seed_cannot_tell(page):
    assert page.compare([{"seed": 1, "cmc1": 0.9}], [{"seed": 1, "cmc1": 0.1}], "cmc1")[1] == "cannot tell"
