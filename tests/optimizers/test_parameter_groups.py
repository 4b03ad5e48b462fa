"""Groups of parameters, beside timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.optimizers.parameter_groups import parameter_groups


def _by_parameter(groups: list[dict]) -> dict[int, tuple[float, float]]:
    found = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups)
    return found


@pytest.mark.parametrize("tiny", [TINY_PLAIN, TINY_HYBRID], ids=["plain", "hybrid"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.6])
def test_a_transformer_has_timms_groups(tiny: dict, layer_decay: float):
    backbone = IRTExtractor(None, **tiny).backbone
    ours = parameter_groups(backbone.parameters(), weight_decay=0.05, layer_decay=layer_decay)
    names = backbone.no_weight_decay()
    theirs = param_groups_layer_decay(backbone, 0.05, no_weight_decay_list=names, layer_decay=layer_decay)
    mine, timms = _by_parameter(ours), _by_parameter(theirs)
    assert mine.keys() == timms.keys()
    assert all(mine[key] == pytest.approx(timms[key]) for key in mine)
    assert {scale for scale, _ in mine.values()} == (
        {1.0} if layer_decay == 1 else {1.0, 0.6, 0.6**2}
    )  # blocks, embedding


def test_the_last_layer_comes_first_and_the_criterion_last():
    backbone = IRTExtractor(None, **TINY_PLAIN).backbone
    proxies = [nn.Parameter(torch.rand(3, 192)), nn.Parameter(torch.tensor(0.1))]
    groups = parameter_groups(
        backbone.parameters(), proxies, weight_decay=0.05, layer_decay=0.5, criterion_lr_factor=100
    )
    scales = [group["lr_scale"] for group in groups]
    assert scales[:-2] == sorted(scales[:-2], reverse=True) and scales[0] == 1.0 and scales[-2:] == [100, 100]
    assert [group["weight_decay"] for group in groups[-2:]] == [0.05, 0.0]
    assert groups[-2]["params"][0] is proxies[0] and groups[-1]["params"][0] is proxies[1]


def test_what_stands_behind_the_transformer_learns_at_full_rate():
    extractor = HybridViTExtractor(None, n_layers=1, embed_dim=8, **TINY_HYBRID)
    groups = parameter_groups(extractor.parameters(), weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    of_backbone = {id(p) for p in extractor.backbone.parameters()}
    behind = [p for p in extractor.parameters() if id(p) not in of_backbone]
    assert behind and all(scale[id(p)] == 1.0 for p in behind)
    assert min(scale.values()) == 0.5**2


def test_layers_that_nobody_knows_are_an_error():
    strange = copy.deepcopy(IRTExtractor(None, **TINY_PLAIN))
    assert parameter_groups(strange.parameters(), weight_decay=0.0)
    with pytest.raises(ValueError, match=r"layer_decay is 0\.5, but none of the \d+ parameters says which layer"):
        parameter_groups(strange.parameters(), weight_decay=0.0, layer_decay=0.5)
