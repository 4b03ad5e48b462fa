"""Wrong arguments of our losses and samplers are errors, those of OML's own are dropped as ever."""

from __future__ import annotations

import numpy as np
import pytest
from oml.registry.losses import get_criterion, get_criterion_by_cfg
from oml.registry.samplers import get_sampler_by_cfg

import oml_vit_ext
from oml_vit_ext.losses import IRTLoss


def test_a_typo_in_a_loss_is_named():
    with pytest.raises(TypeError, match=r"argument of criterion 'irt': 'margn'.*did you mean 'margin'"):
        get_criterion_by_cfg({"name": "irt", "args": {"margn": 0.1}})


def test_a_typo_in_a_sampler_is_named():
    with pytest.raises(TypeError, match=r"argument of sampler 'hard_tuples': 'n_tuple'.*did you mean 'n_tuples'"):
        get_sampler_by_cfg({"name": "hard_tuples", "args": {"n_tuple": 2}}, labels=np.repeat(np.arange(9), 3))


def test_what_the_pipeline_passes_to_all_is_no_typo():
    loss = get_criterion_by_cfg({"name": "irt", "args": {"margin": 0.25}}, label2category={})
    assert isinstance(loss, IRTLoss) and loss.margin == 0.25


def test_losses_of_oml_are_built_as_ever():
    assert type(get_criterion_by_cfg({"name": "triplet", "args": {"margin": 0.1, "typo": 1}})).__name__ == "TripletLoss"


def test_registering_again_changes_nothing():
    from oml.registry import losses

    before = losses.get_criterion
    oml_vit_ext.register()
    assert losses.get_criterion is before and get_criterion.__name__ == "get_criterion"
