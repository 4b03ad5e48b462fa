"""Batch samplers of a training learn its epoch, and those that mine get embeddings of its model."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oml.lightning.modules.extractor import ExtractorModuleDDP
from torch import nn
from torch.utils.data import DataLoader

from oml_vit_ext.oml_patches import sampler_epochs
from oml_vit_ext.oml_patches.sampler_epochs import embed, introduce_in

IMAGES = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


class Sampler:
    """One batch a time; remembers what it was given."""

    batch_size = 2

    def __iter__(self):
        yield [0, 1]

    def __len__(self) -> int:
        return 1


class Follower(Sampler):
    def follow_epochs(self, epoch: Any) -> None:
        self.epoch = epoch


class Miner(Follower):
    def mine_with(self, embed: Any) -> None:
        self.embed = embed


class Module:
    """A training module of OML, as far as the sampler is concerned."""

    input_tensors_key, device, current_epoch = "pixels", torch.device("cpu"), 4

    def __init__(self, sampler: Sampler | None = None, model: nn.Module | None = None) -> None:
        items = [{"pixels": image, "labels": 0} for image in IMAGES]
        self.loaders_train = DataLoader(items, batch_sampler=sampler) if sampler else "no loader of torch"
        self.model = model or nn.Linear(4, 3)
        self.contexts = 0
        self.trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=self._context))

    @contextlib.contextmanager
    def _context(self):
        self.contexts += 1
        yield

    def train_dataloader(self) -> Any:
        return self.loaders_train


@pytest.fixture()
def module_class() -> type[Module]:
    class Introduced(Module): ...

    introduce_in(Introduced)
    return Introduced


def test_a_sampler_follows_the_epoch_of_the_training(module_class: type[Module]):
    sampler = Follower()
    module = module_class(sampler)
    assert module.train_dataloader() is module.loaders_train
    assert sampler.epoch() == 4
    module.current_epoch = 5
    assert sampler.epoch() == 5


def test_a_sampler_that_mines_gets_the_model_of_then(module_class: type[Module]):
    sampler = Miner()
    module = module_class(sampler)
    module.train_dataloader()
    rows = np.array([8, 0, 3])
    before = sampler.embed(rows)
    with torch.no_grad():
        module.model.weight.mul_(-1)
    torch.testing.assert_close(sampler.embed(rows), F.normalize(module.model(IMAGES[rows])).detach())
    assert not torch.allclose(sampler.embed(rows), before)


def test_what_a_sampler_reports_goes_to_every_logger(module_class: type[Module]):
    class Reporter(Sampler):
        def report_to(self, report: Any) -> None:
            self.report = report

    logged: list[Any] = []
    logger = SimpleNamespace(log_metrics=lambda figures, step: logged.append((figures, step)))
    sampler = Reporter()
    module: Any = module_class(sampler)
    module.loggers, module.global_step = [logger, logger], 7
    module.train_dataloader()
    sampler.report({"mined_similarity": 0.5})
    assert logged == [({"mined_similarity": 0.5}, 7)] * 2


def test_other_loaders_are_handed_out_as_ever(module_class: type[Module]):
    assert module_class().train_dataloader() == "no loader of torch"
    module = module_class(Sampler())
    assert module.train_dataloader() is module.loaders_train and vars(module.loaders_train.batch_sampler) == {}


def test_rows_are_embedded_in_evaluation_and_the_modes_come_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    model[2].eval()  # frozen, say
    module = Module(Miner(), model)
    rows = np.array([5, 5, 1, 7, 2])
    found = embed(module, module.loaders_train, rows)
    assert [m.training for m in model] == [True, True, False] and model.training
    expected = F.normalize(model.eval()(IMAGES[rows])).detach()
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32 and not found.requires_grad and module.contexts == 1


def test_two_processes_embed_their_shares(monkeypatch: pytest.MonkeyPatch):
    module, rows, shares = Module(Miner()), np.arange(7), []
    alone = embed(module, module.loaders_train, rows)
    monkeypatch.setattr(sampler_epochs, "gather_sizes", lambda n, device: [n])
    monkeypatch.setattr(sampler_epochs, "gather_rows", lambda local, sizes: shares.append(local) or [local])
    for rank in (0, 1):
        monkeypatch.setattr(sampler_epochs, "rank_and_world", lambda rank=rank: (rank, 2))
        embed(module, module.loaders_train, rows)
    assert [len(share) for share in shares] == [4, 3]
    torch.testing.assert_close(torch.cat(shares), alone)


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_processes_without_a_share_join_in_with_no_rows(monkeypatch: pytest.MonkeyPatch, n_rows: int):
    """Of another shape, they would let the collective hang or mix up the rows of the others."""
    module, rows, shares = Module(Miner()), np.array([4, 1])[:n_rows], []
    monkeypatch.setattr(sampler_epochs, "gather_sizes", lambda n, device: [n])
    monkeypatch.setattr(sampler_epochs, "gather_rows", lambda local, sizes: shares.append(local) or [local])
    for rank in range(3):
        monkeypatch.setattr(sampler_epochs, "rank_and_world", lambda rank=rank: (rank, 3))
        embed(module, module.loaders_train, rows)
    assert [len(share) for share in shares] == [rank < n_rows for rank in range(3)]
    assert len({share.shape[1:] for share in shares}) == 1
    if n_rows:
        torch.testing.assert_close(torch.cat(shares), F.normalize(module.model(IMAGES[rows])).detach())


def test_the_training_module_of_oml_introduces_its_sampler():
    sampler, model = Follower(), nn.Linear(4, 3)
    module = ExtractorModuleDDP(
        loaders_train=DataLoader([1, 2], batch_sampler=sampler),
        extractor=model,
        criterion=nn.Identity(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    )
    (batch,) = module.train_dataloader()
    assert batch.tolist() == [1, 2] and sampler.epoch() == 0
