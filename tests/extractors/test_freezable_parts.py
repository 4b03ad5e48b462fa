"""What is frozen has no gradients and computes as in evaluation, whatever is trained around it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from oml_vit_ext.extractors.freezable_parts import FreezableParts


class Model(FreezableParts):
    """A stem with dropout and a batch norm, a token of its own, a head."""

    default_parts = ("stem", "token")

    def __init__(self, frozen: Iterable[str] = ()) -> None:
        super().__init__(frozen)
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.token = nn.Parameter(torch.ones(4))
        self.head = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
        self.freeze_from_the_start()

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        return {"stem": [self.stem], "token": [self.token], "head": [self.head]}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x) + self.token)


def _trained(model: Model) -> set[str]:
    """The first words of the names of parameters with gradients after a step."""
    model.zero_grad()
    loss = model(torch.randn(8, 4)).pow(2).sum()
    if loss.requires_grad:
        loss.backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}


def test_called_as_oml_does_the_default_parts_are_frozen():
    model = Model()
    assert _trained(model) == {"stem", "token", "head"}
    model.freeze()
    assert _trained(model) == {"head"} and model.is_frozen("stem") and not model.is_frozen("head")
    model.unfreeze()
    assert _trained(model) == {"stem", "token", "head"} and not model.is_frozen("stem")


def test_parts_by_name():
    model = Model()
    model.freeze("head", "token")
    assert _trained(model) == {"stem"}
    model.unfreeze()
    assert _trained(model) == {"stem", "token"}, "the head is no default part"
    model.unfreeze("head")
    assert _trained(model) == {"stem", "token", "head"}
    for change in (model.freeze, model.unfreeze):
        with pytest.raises(ValueError, match="Unknown part 'haed': did you mean 'head'"):
            change("stem", "haed")
    assert _trained(model) == {"stem", "token", "head"}, "nothing is changed by a wrong name"


def test_what_is_frozen_from_the_start_stays_frozen_until_it_is_named():
    model = Model(frozen=["stem", "head"])
    assert _trained(model) == {"token"}
    model.freeze()
    model.unfreeze()
    assert _trained(model) == {"token"}
    model.unfreeze("stem")
    assert _trained(model) == {"stem", "token"}
    with pytest.raises(ValueError, match="Unknown part 'tail'"):
        Model(frozen=["tail"])


def test_a_frozen_part_computes_as_in_evaluation_while_the_rest_is_trained():
    model, x = Model().train(), torch.randn(8, 4)
    model.freeze()
    before = model.stem[1].running_mean.clone()
    for _ in range(2):
        model.train()  # as Lightning does before each epoch
        torch.testing.assert_close(model.stem(x), model.stem(x))
        assert model.training and model.head.training and not any(m.training for m in model.stem.modules())
    torch.testing.assert_close(model.stem[1].running_mean, before, atol=0, rtol=0)
    model.unfreeze()
    assert all(m.training for m in model.stem.modules())
    model.stem(x)
    assert not torch.equal(model.stem[1].running_mean, before)


def test_thawing_in_evaluation_mode_does_not_start_training():
    model = Model().eval()
    model.freeze()
    model.unfreeze()
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())
