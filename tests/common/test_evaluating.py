"""Evaluation mode for a while: each part is afterwards as it was."""

from __future__ import annotations

import threading

import pytest
from torch import nn

from oml_vit_ext.common.evaluating import evaluating


def _model() -> nn.Sequential:
    """In training, but for a frozen part whose last layer somebody set to training again."""
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    model[1].eval()
    model[1][1].train()
    return model


def test_within_the_block_all_parts_evaluate():
    model = _model()
    with evaluating(model):
        assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_each_part_is_in_its_own_mode(fails: bool):
    model = _model()
    before = [module.training for module in model.modules()]
    try:
        with evaluating(model):
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert [module.training for module in model.modules()] == before == [True, True, False, False, True]


def test_blocks_within_each_other():
    model = _model()
    with evaluating(model):
        with evaluating(model[1]):
            pass
        assert not any(module.training for module in model.modules())
    assert model.training and not model[1].training


def test_threads_that_use_one_model():
    """The first to leave must not put the model into training mode under the others."""
    model = _model()
    before = [module.training for module in model.modules()]
    first_left = threading.Event()
    both_in = threading.Barrier(2)
    modes = []

    def first() -> None:
        with evaluating(model):
            both_in.wait(10)
        first_left.set()

    def second() -> None:
        with evaluating(model):
            both_in.wait(10)
            first_left.wait(10)
            modes.extend(module.training for module in model.modules())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert modes and not any(modes)
    assert [module.training for module in model.modules()] == before
