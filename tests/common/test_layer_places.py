"""Notes on parameters of where they stand."""

from __future__ import annotations

import copy

from torch import nn

from oml_vit_ext.common.layer_places import LayerPlace, note_places, place_of


def test_each_parameter_tells_its_place():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert place_of(model[0].weight) is None
    note_places(model, {"0.weight": 0, "0.bias": 0, "1.weight": 1}, without_decay=["*.bias"])
    assert place_of(model[0].weight) == LayerPlace(0, 2, without_decay=False)
    assert place_of(model[0].bias) == LayerPlace(0, 2, without_decay=True)
    assert place_of(model[1].bias) == LayerPlace(1, 2, without_decay=True)  # in no layer: with the last one


def test_it_survives_a_move_but_not_a_copy():
    model = nn.Linear(2, 2)
    note_places(model, {"weight": 0, "bias": 0}, without_decay=[])
    assert place_of(model.double().weight) is not None
    assert place_of(copy.deepcopy(model).weight) is None
