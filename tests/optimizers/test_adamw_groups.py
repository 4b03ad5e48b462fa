"""AdamW with groups: steps, schedulers, state, and OML's way of building it."""

from __future__ import annotations

import pytest
import torch
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.schedulers import get_scheduler_by_cfg
from torch import nn

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.optimizers import AdamWGroups


def _model_and_proxies() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), nn.Embedding(2, 3)


def _gradients(*modules: nn.Module) -> None:
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape)


def _as_oml_gives_them(model: nn.Module, criterion: nn.Module, lr: float) -> list[dict]:
    return [{"lr": lr, "params": model.parameters()}, {"lr": lr, "params": criterion.parameters()}]


def test_steps_are_those_of_adamw_with_the_rates_written_out():
    (model, proxies), (same_model, same_proxies) = _model_and_proxies(), _model_and_proxies()
    ours = get_optimizer_by_cfg(
        {"name": "adamw_groups", "args": {"lr": 1e-3, "weight_decay": 0.1, "criterion_lr_factor": 50.0}},
        params=_as_oml_gives_them(model, proxies, 1e-3),
    )
    without_decay = [same_model[0].bias, *same_model[1].parameters()]
    plain = torch.optim.AdamW(
        [
            {"params": [same_model[0].weight], "lr": 1e-3, "weight_decay": 0.1},
            {"params": without_decay, "lr": 1e-3, "weight_decay": 0.0},
            {"params": same_proxies.parameters(), "lr": 5e-2, "weight_decay": 0.1},
        ]
    )
    for _ in range(3):
        _gradients(model, proxies, same_model, same_proxies)
        ours.step()
        plain.step()
    same = [*same_model.parameters(), *same_proxies.parameters()]
    for mine, its in zip([*model.parameters(), *proxies.parameters()], same, strict=True):
        torch.testing.assert_close(mine, its)
    assert {group["lr"] for group in ours.param_groups} == {1e-3}


@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "one_cycle", "args": {"max_lr": 1e-2, "total_steps": 4, "cycle_momentum": False}},
        {"name": "cyclic", "args": {"base_lr": 1e-3, "max_lr": 1e-2, "cycle_momentum": False}},
        {"name": "cosine_annealing", "args": {"T_max": 4}},
        {"name": "multi_step", "args": {"milestones": [1, 2]}},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_the_ratio_stays_under_every_scheduler(scheduler: dict):
    model, proxies = nn.Linear(1, 1, bias=False), nn.Embedding(1, 1)
    optimizer = AdamWGroups(_as_oml_gives_them(model, proxies, 1e-3), 1e-3, weight_decay=0.0)
    schedule = get_scheduler_by_cfg(scheduler, optimizer=optimizer)
    for _ in range(3):
        before = [model.weight.item(), proxies.weight.item()]
        model.weight.grad = proxies.weight.grad = torch.ones(1, 1)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        moved = [before[0] - model.weight.item(), before[1] - proxies.weight.item()]
        assert moved == pytest.approx([rate, 100 * rate], rel=2e-2)  # Adam's step for a constant gradient is the rate


def test_a_closure_is_called_once_and_sees_the_rate_of_the_log():
    model, proxies = _model_and_proxies()
    optimizer, seen = AdamWGroups(_as_oml_gives_them(model, proxies, 1e-3), 1e-3), []

    def closure() -> float:
        _gradients(model, proxies)
        seen.append({group["lr"] for group in optimizer.param_groups})
        return 0.5

    assert optimizer.step(closure) == 0.5 and seen == [{1e-3}]


def test_its_state_goes_on():
    model, proxies = _model_and_proxies()
    optimizer = AdamWGroups(_as_oml_gives_them(model, proxies, 1e-3), 1e-3)
    _gradients(model, proxies)
    optimizer.step()
    other_model, other_proxies = _model_and_proxies()
    other_model.load_state_dict(model.state_dict())
    other_proxies.load_state_dict(proxies.state_dict())
    other = AdamWGroups(_as_oml_gives_them(other_model, other_proxies, 1e-3), 1e-3)
    other.load_state_dict(optimizer.state_dict())
    _gradients(model, proxies, other_model, other_proxies)
    optimizer.step()
    other.step()
    torch.testing.assert_close(
        [*other_model.parameters(), *other_proxies.parameters()], [*model.parameters(), *proxies.parameters()]
    )


def test_without_a_criterion_that_learns():
    extractor = IRTExtractor(None, **TINY_PLAIN)
    groups = AdamWGroups(_as_oml_gives_them(extractor, nn.Identity(), 1e-3), layer_decay=0.75).param_groups
    assert groups[0]["lr_scale"] == 1.0 and groups[-1]["lr_scale"] == 0.75**2
    alone = AdamWGroups(extractor.parameters(), layer_decay=0.75).param_groups  # as for re-rankers
    assert [g["lr_scale"] for g in alone] == [g["lr_scale"] for g in groups]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"layer_decay": 1.5}, r"layer_decay is 1\.5, expected a number from 0 to 1"),
        ({"criterion_lr_factor": -1}, "criterion_lr_factor is -1, expected"),
        ({"lr": "3e-5"}, "lr is '3e-5', expected a finite number"),
    ],
)
def test_wrong_arguments(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        AdamWGroups([nn.Parameter(torch.ones(1))], **wrong)
    with pytest.raises(ValueError, match="list of 3 groups, expected two"):
        AdamWGroups([{"params": [nn.Parameter(torch.ones(1))]}] * 3)
