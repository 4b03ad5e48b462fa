"""The tables of docs/scale.md are those of its result file."""

from __future__ import annotations

import json
from statistics import median

from helpers import ROOT

RESULTS = json.loads((ROOT / "docs/results/scale.json").read_text())
PAGE = (ROOT / "docs/scale.md").read_text()


def test_images_per_second():
    """Medians over the rounds; the ratio is taken in each round, as the machine may be busier in another."""
    rates = RESULTS["images_per_second"]
    for name, of_rounds in rates.items():
        ratio = median(a / b for a, b in zip(of_rounds, rates["Ray, 1 worker"], strict=True))
        assert f"| {name} | {median(of_rounds):.1f} | {ratio:.2f} |" in PAGE


def test_an_index_in_milvus():
    milvus = RESULTS["milvus"]
    assert f"{milvus['rows']:,}".replace(",", " ") + f" rows of {milvus['dim']} numbers" in PAGE
    for name, found in milvus["kinds"].items():
        speed = f"{found['queries_per_second']:.0f} | {1_000 * found['seconds_for_one']:.0f} ms |"
        if name == "a folder":
            assert f"| a folder, exact | | 1 | 1 | {speed}" in PAGE
        else:
            params = ", ".join(f"{key}={value}" for key, value in found.get("index_params", {}).items())
            how = ", ".join(filter(None, [params, found["search_params"]]))
            told = f"| {name} | {how} | {found['recall_at_5']:.3f} | {found['same_five']:.3f} | {speed}"
            assert told in PAGE, told
