"""Momentum embeddings reach the memory, under DDP and through a PCA too; where they cannot, it is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers import TINY_PLAIN
from oml_vit_ext.common.momentum_embeddings import attach, find
from oml_vit_ext.extractors import ExtractorWithMomentum, ExtractorWithPCA, IRTExtractor, fit_pca, save_pca
from oml_vit_ext.losses import ContrastiveXBMLoss, PMLLoss

LABELS = torch.tensor([0, 0, 1, 1])
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "contrastive_xbm": lambda: ContrastiveXBMLoss(memory_size=8),
    "pml": lambda: PMLLoss({"name": "ContrastiveLoss"}, memory_size=8),
}
EACH_LOSS = pytest.mark.parametrize("loss", LOSSES)


def distinct_model() -> ExtractorWithMomentum:
    """The average is far from what is trained: one cannot be taken for the other."""
    model = ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN), 0.999).train()
    with torch.no_grad():
        model.momentum_extractor.backbone.cls_token += torch.randn(192)
    return model


def stored(criterion: nn.Module) -> Tensor:
    return F.normalize(criterion.memory.entries(torch.zeros(1, 192))[0], dim=1)


@EACH_LOSS
@pytest.mark.parametrize(
    "way",
    [
        lambda x: x,
        lambda x: x.float(),
        lambda x: x.double(),
        lambda x: x.clone(),
        lambda x: x.bfloat16().float(),
        lambda x: x.unflatten(1, (2, -1)).flatten(1),
        lambda x: F.normalize(x, dim=1),
    ],
    ids=["as it is", "float", "double", "clone", "half", "view", "normalize"],
)
def test_what_keeps_an_embedding_lets_them_pass(loss: str, way: Callable[[Tensor], Tensor]):
    model, criterion, images = distinct_model(), LOSSES[loss](), torch.rand(4, 3, 32, 32)
    criterion(way(model(images)), LABELS).backward()
    with torch.no_grad():
        momentum, trained = model.momentum_extractor(images), model.extractor(images)
    torch.testing.assert_close(stored(criterion), momentum)
    assert (trained - momentum).abs().max() > 1e-2


def test_normalising_is_repeated():
    embeddings = torch.randn(4, 6, requires_grad=True)
    momentum = 5 * torch.randn(4, 6)
    torch.testing.assert_close(find(F.normalize(attach(embeddings, momentum), dim=1)), F.normalize(momentum, dim=1))
    assert find(attach(embeddings, momentum) / torch.arange(1.0, 7.0)) is None, "another direction"
    assert find(F.normalize(attach(embeddings, momentum), dim=0)) is None, "columns"


@EACH_LOSS
def test_a_pca_around_projects_them_too(loss: str, tmp_path: Path):
    model, criterion, images = distinct_model(), LOSSES[loss](), torch.rand(4, 3, 32, 32)
    save_pca(fit_pca(torch.randn(30, 192), 8), tmp_path / "pca.safetensors")
    compact = ExtractorWithPCA(model, tmp_path / "pca.safetensors", 8).train()
    criterion(compact(images), LABELS).backward()
    with torch.no_grad():
        torch.testing.assert_close(
            criterion.memory.entries(torch.zeros(1, 8))[0], compact.compress(model.momentum_extractor(images))
        )


@EACH_LOSS
def test_under_autocast(loss: str):
    model, criterion, images = distinct_model(), LOSSES[loss](), torch.rand(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        criterion(model(images), LABELS).backward()
        with torch.no_grad():
            momentum = model.momentum_extractor(images)
    torch.testing.assert_close(stored(criterion), momentum)


@EACH_LOSS
def test_of_a_frozen_extractor(loss: str):
    model, criterion, images = distinct_model(), LOSSES[loss](), torch.rand(4, 3, 32, 32)
    model.freeze()
    criterion(model(images), LABELS).backward()
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(stored(criterion), model.momentum_extractor(images))


@EACH_LOSS
@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_in_between_is_told_once(loss: str, frozen: bool, caplog: pytest.LogCaptureFixture):
    model, criterion, head = distinct_model(), LOSSES[loss](), nn.Linear(192, 192)
    if frozen:
        model.freeze()
    for _ in range(2):
        embeddings = head(model(torch.rand(4, 3, 32, 32)))
        criterion(embeddings, LABELS).backward()
    torch.testing.assert_close(stored(criterion)[-4:], F.normalize(embeddings.detach(), dim=1))
    told = [r for r in caplog.records if "not those of the moving average" in r.message]
    assert len(told) == 1 and told[0].levelno == logging.WARNING


@EACH_LOSS
def test_what_the_memory_stores_is_told_once(loss: str, caplog: pytest.LogCaptureFixture):
    images = torch.rand(4, 3, 32, 32)
    with caplog.at_level(logging.INFO):
        for model in (distinct_model(), IRTExtractor(None, **TINY_PLAIN)):
            criterion = LOSSES[loss]()
            for _ in range(2):
                criterion(model(images), LABELS)
    told = [r.message.split(": ")[1] for r in caplog.records if "the memory stores" in r.message]
    assert told == [
        "the memory stores the embeddings of the moving average",
        "the memory stores the trained embeddings",
    ]


def test_nothing_is_attached_without_gradients():
    embeddings = torch.randn(2, 3)
    with torch.no_grad():
        assert attach(embeddings, embeddings) is embeddings


def test_gradients_are_those_without_them():
    embeddings, momentum = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    weights = torch.randn(3, 4)
    (gradient,) = torch.autograd.grad((attach(embeddings, momentum) * weights).sum(), embeddings)
    torch.testing.assert_close(gradient, weights)


mp.get_context("forkserver").set_forkserver_preload(["oml_vit_ext.losses", "oml_vit_ext.extractors"])


def train_on_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    worst = {}
    for find_unused in (False, True):
        for name, build in LOSSES.items():
            torch.manual_seed(0)
            model, criterion = distinct_model(), build()
            images = torch.rand(8, 3, 32, 32)
            wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused)
            criterion(wrapped(images[4 * rank : 4 * rank + 4]), LABELS).backward()
            with torch.no_grad():
                expected = model.momentum_extractor(images)
            worst[find_unused, name] = float((stored(criterion) - expected).abs().max())
    torch.save(worst, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_whatever_ddp_does_with_outputs(tmp_path: Path):
    mp.start_processes(train_on_rank, (tmp_path,), nprocs=2, start_method="forkserver")
    for rank in range(2):
        worst = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(worst) == 4 and max(worst.values()) < 1e-5, worst
