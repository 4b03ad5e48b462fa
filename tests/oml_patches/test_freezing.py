"""``freeze_n_epochs`` of OML: effective where Lightning never calls its hook, untouched where it works."""

from __future__ import annotations

import logging
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from oml.interfaces.models import IExtractor, IFreezable
from oml.lightning.modules.extractor import ExtractorModule, ExtractorModuleDDP
from oml.lightning.modules.pairwise_postprocessing import PairwiseModuleDDP
from oml.lightning.pipelines import train, train_postprocessor
from oml.models.meta.projection import ExtractorWithMLP
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

import oml_vit_ext
from oml_vit_ext.oml_patches.freezing import freeze_at_epoch_start, let_ddp_find_frozen_parameters


class Linear(IExtractor, IFreezable):
    """Pixels to features, all of it frozen by ``freeze``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    @property
    def feat_dim(self) -> int:
        return 3

    def freeze(self) -> None:
        self.requires_grad_(False)

    def unfreeze(self) -> None:
        self.requires_grad_(True)


class Classes(nn.Module):
    """A criterion with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Linear(3, 2)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.centres(features), labels)


class FeatureNorm(nn.Module):
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return features.pow(2).mean()


def fit(extractor: IExtractor, criterion: nn.Module, watched: Tensor, *, freeze: int, epochs: int) -> list[Tensor]:
    """Train with weight decay and momentum; returns ``watched`` before the first and after each epoch."""
    seen = [watched.detach().clone()]

    class Watch(pl.Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            seen.append(watched.detach().clone())

    items = [{"input_tensors": torch.randn(4), "labels": i % 2} for i in range(8)]
    loader = DataLoader(items, batch_size=4)  # type: ignore[arg-type]
    parameters = [*extractor.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    module = ExtractorModule(extractor=extractor, criterion=criterion, optimizer=optimizer, freeze_n_epochs=freeze)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[Watch()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    return seen


def moved(seen: list[Tensor]) -> list[bool]:
    return [not torch.equal(before, after) for before, after in pairwise(seen)]


@pytest.mark.parametrize(("freeze", "expected"), [(2, [False, False, True]), (0, [True] * 3), (9, [False] * 3)])
def test_frozen_weights_move_in_no_epoch_but_the_later_ones(freeze: int, expected: list[bool]):
    extractor = Linear()
    assert moved(fit(extractor, Classes(), extractor.layer.weight, freeze=freeze, epochs=3)) == expected


def test_what_is_not_frozen_learns_from_the_first_epoch_on():
    criterion = Classes()
    assert moved(fit(Linear(), criterion, criterion.centres.weight, freeze=2, epochs=3)) == [True] * 3


def test_the_oml_own_way_of_freezing_works_too():
    extractor = ExtractorWithMLP(Linear(), mlp_features=[3], train_backbone=True)
    seen = fit(extractor, Classes(), extractor.extractor.layer.weight, freeze=1, epochs=2)
    assert moved(seen) == [False, True]


def test_nothing_left_to_train_is_said():
    with pytest.raises(RuntimeError, match=r"freeze_n_epochs=1 froze all parameters of Linear.*expected freeze_n_ep"):
        fit(Linear(), FeatureNorm(), torch.zeros(1), freeze=1, epochs=2)


def test_both_modules_of_the_oml_are_repaired_once():
    hooks = [c.on_train_epoch_start for c in (ExtractorModuleDDP, PairwiseModuleDDP)]
    assert pl.LightningModule.on_train_epoch_start not in hooks
    oml_vit_ext.register()
    assert [c.on_train_epoch_start for c in (ExtractorModuleDDP, PairwiseModuleDDP)] == hooks


class OnLightning1(pl.LightningModule):
    def on_epoch_start(self) -> None: ...


class RepairedByTheHost(OnLightning1):
    def on_train_epoch_start(self) -> None:
        self.on_epoch_start()


class NothingToCall(pl.LightningModule): ...


@pytest.mark.parametrize("module_class", [RepairedByTheHost, NothingToCall])
def test_a_class_that_needs_no_repair_stays_as_it_is(module_class: Any, caplog: pytest.LogCaptureFixture):
    before = module_class.on_train_epoch_start
    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        freeze_at_epoch_start(module_class)
    assert module_class.on_train_epoch_start is before and not caplog.records


def test_nothing_is_done_where_lightning_calls_the_hook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pl.LightningModule, "on_epoch_start", lambda self: None, raising=False)
    freeze_at_epoch_start(OnLightning1)
    assert OnLightning1.on_train_epoch_start is pl.LightningModule.on_train_epoch_start


def test_the_repair_is_logged_once(caplog: pytest.LogCaptureFixture):
    class Broken(pl.LightningModule):
        def on_epoch_start(self) -> None: ...

    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        freeze_at_epoch_start(Broken)
        freeze_at_epoch_start(Broken)
    assert [r.getMessage() for r in caplog.records] == ["open-metric-learning: freeze_n_epochs of Broken is effective"]


@pytest.mark.parametrize("pipeline", [train, train_postprocessor])
@pytest.mark.parametrize(
    ("cfg", "finds"),
    [
        ({"freeze_n_epochs": 3}, True),
        ({"freeze_n_epochs": 3, "find_unused_parameters": False}, True),
        ({"freeze_n_epochs": 0}, False),
        ({}, False),
        ({"find_unused_parameters": True}, True),
    ],
)
def test_ddp_does_not_wait_for_frozen_gradients(pipeline: Any, cfg: dict[str, Any], finds: bool):
    engine = pipeline.parse_engine_params_from_config({"devices": 2, "accelerator": "cpu", **cfg})
    assert isinstance(engine["strategy"], DDPStrategy)
    assert engine["strategy"]._ddp_kwargs["find_unused_parameters"] is finds


def test_one_process_is_configured_as_before():
    cfg = {"devices": 1, "accelerator": "cpu", "freeze_n_epochs": 3}
    assert train.parse_engine_params_from_config(cfg)["strategy"] == "auto"


def test_an_oml_without_that_function_is_left_alone():
    pipeline: Any = SimpleNamespace(__name__="other_oml")
    let_ddp_find_frozen_parameters(pipeline)
    assert vars(pipeline) == {"__name__": "other_oml"}


def test_the_oml_module_of_one_process_is_repaired_too():
    assert ExtractorModule.on_train_epoch_start is ExtractorModuleDDP.on_train_epoch_start
