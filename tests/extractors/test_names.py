"""Names of parameters, whatever wrapper the model was in when they were written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric.plugins import Precision
from lightning_fabric.wrappers import _FabricModule
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from oml_vit_ext.extractors.names import plain_name

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "activation checkpoints": checkpoint_wrapper,
    "Fabric": lambda model: _FabricModule(model, Precision()),
}


def _model(wrap: Callable[[nn.Module], nn.Module] = lambda part: part) -> nn.Module:
    """A model, one part of which is wrapped."""
    return nn.ModuleDict({"backbone": wrap(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))), "head": nn.Linear(2, 1)})


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_part_has_the_names_of_the_plain_one(wrapper: str):
    plain = [name for name, _ in _model().named_parameters()]
    wrapped = [name for name, _ in _model(WRAPPERS[wrapper]).named_parameters()]
    assert wrapped != plain and [plain_name(name) for name in wrapped] == plain


@pytest.mark.parametrize(
    "name",
    [
        "module._orig_mod.blocks.0.attn.weight",
        "_forward_module.module.blocks._checkpoint_wrapped_module.0.attn.weight",
        "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.attn._orig_mod.weight",
    ],
)
def test_wrappers_may_be_nested_and_stand_anywhere(name: str):
    assert plain_name(name) == "blocks.0.attn.weight"


@pytest.mark.parametrize("name", ["weight", "modules.0.weight", "my_module.module_a.bias", "head.module", "module"])
def test_names_that_only_look_alike_stay(name: str):
    assert plain_name(name) == name
