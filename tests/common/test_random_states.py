"""Random numbers go on where they were."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from oml_vit_ext.common.random_states import random_states, set_random_states


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
