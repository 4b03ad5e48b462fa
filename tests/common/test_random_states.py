"""Random numbers go on where they were."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oml_vit_ext.common.random_states import check_random_states, random_states, set_random_states


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.randn()),
        float(np.random.rand()),
        float(torch.rand(())),
    ]


def test_they_go_on_from_a_file(tmp_path: Path):
    random.gauss(0, 1), np.random.randn()  # each keeps a second number for the next call
    torch.save(random_states(), tmp_path / "states")
    expected = draw()
    draw()
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert draw() == expected


@pytest.mark.parametrize(
    "change",
    [
        {"python": [3, [1] * 624, None]},
        {"python": None},
        {"python": [3, [2**40] * 625, None]},
        {"numpy": ["MT19937", torch.zeros(3, dtype=torch.int64), 0, 0, 0.0]},
        {"numpy": [1, 2]},
        {"torch": torch.zeros(5, dtype=torch.uint8)},
        {"torch": "text"},
        {"cuda": 3},
    ],
)
def test_what_is_none_is_told_and_not_taken(change: dict[str, Any]):
    states = random_states()
    check_random_states(states)
    with pytest.raises(ValueError, match="random state"):
        check_random_states({**states, **change})
    with pytest.raises(ValueError, match="random state"):
        check_random_states(None)
    assert random.getstate() == (states["python"][0], tuple(states["python"][1]), states["python"][2])
