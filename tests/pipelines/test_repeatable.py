"""One seed, one result: a training through OML's pipelines ends with the same weights and figures each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.trainings import best_score, content, extractor_config, reranker_config, train

# With two threads and processes that load images, as people train.
CASES = {
    "extractor": (extractor_config, {"num_workers": 2, "max_epochs": 2}),
    "extractor in bfloat16, as in the demo": (
        extractor_config,
        {"num_workers": 1, "max_epochs": 1, "precision": "bf16-mixed"},
    ),
    "re-ranker": (reranker_config, {"num_workers": 1, "max_epochs": 2, "freeze_n_epochs": 0}),
}


@pytest.fixture(params=[False, True], ids=["as it is", "deterministic mode"])
def deterministic(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Also with ``torch.use_deterministic_algorithms``, which refuses what could differ."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("case", sorted(CASES))
def test_two_trainings_are_equal(case: str, deterministic: bool, demo_slice: Path, tmp_path: Path):
    make, changes = CASES[case]
    one, other = (_trained(make, demo_slice, changes, tmp_path / name) for name in ("one", "other"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    differing = [name for name, value in one["state_dict"].items() if not torch.equal(value, other["state_dict"][name])]
    assert not differing
    assert best_score(one) == best_score(other)


def _trained(
    make: Callable[..., dict[str, Any]], dataset: Path, changes: dict[str, Any], folder: Path
) -> dict[str, Any]:
    torch.rand(len(folder.name))  # whatever was drawn before has no say
    return content(train(make(dataset, **changes), folder))
