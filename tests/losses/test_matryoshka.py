"""Any criterion on several prefixes of the embeddings."""

from __future__ import annotations

import pytest
import torch
from oml.losses.triplet import TripletLossWithMiner
from oml.registry.losses import get_criterion_by_cfg
from torch import Tensor

from oml_vit_ext.common.momentum_embeddings import attach
from oml_vit_ext.losses import ContrastiveXBMLoss, MatryoshkaLoss
from oml_vit_ext.losses.matryoshka import prefix

XBM = {"name": "contrastive_xbm", "args": {"margin": 0.1, "memory_size": 10}}


def batch(seed: int, normalised: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(6, 8, generator=generator)
    if normalised:
        features = torch.nn.functional.normalize(features)
    return features.requires_grad_(), torch.randint(3, (6,), generator=generator)


def test_value_gradient_and_memories_are_those_of_separate_criteria():
    criterion = get_criterion_by_cfg(
        {"name": "matryoshka", "args": {"criterion": XBM, "dims": [2, 5, 8], "weights": [1.0, 0.5, 2.0]}},
        label2category=None,
    )
    separate = [ContrastiveXBMLoss(0.1, 10) for _ in range(3)]
    for seed in range(3):
        features, labels = batch(seed)
        plain = sum(
            weight * loss(torch.nn.functional.normalize(features[:, :d]), labels)
            for weight, loss, d in zip((1.0, 0.5, 2.0), separate, (2, 5, 8), strict=True)
        )
        value = criterion(features, labels)
        torch.testing.assert_close(value, plain)
        along = features.detach()  # what changes the length alone is lost when the extractor normalises
        tangential = [
            gradient - (gradient * along).sum(1, keepdim=True) * along
            for gradient in (torch.autograd.grad(value, features)[0], torch.autograd.grad(plain, features)[0])
        ]
        torch.testing.assert_close(*tangential)
    for d, mine, alone in zip((2, 5, 8), criterion.criteria, separate, strict=True):
        like = features[:, :d]
        torch.testing.assert_close(mine.memory.entries(like)[0], alone.memory.entries(like)[0])
    assert {len(c.memory) for c in criterion.criteria} == {10}
    assert criterion.last_logs["memory_fill_5"] == pytest.approx(1.0) and "contrastive_8" in criterion.last_logs


@pytest.mark.parametrize("normalised", [True, False])
def test_the_whole_embedding_alone_is_the_criterion_itself(normalised: bool):
    plain = TripletLossWithMiner(margin=0.3, miner=get_miner())
    criterion = MatryoshkaLoss(plain, dims=[8])
    features, labels = batch(1, normalised)[0], torch.tensor([0, 0, 1, 1, 2, 2])
    value, expected = criterion(features, labels), plain(features, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, features)[0], torch.autograd.grad(expected, features)[0])


def get_miner():
    from oml.miners.inbatch_all_tri import AllTripletsMiner

    return AllTripletsMiner()


def test_a_prefix_has_the_length_of_the_whole():
    features, _ = batch(2, normalised=False)
    torch.testing.assert_close(prefix(features, 3).norm(dim=1), features.norm(dim=1))
    torch.testing.assert_close(
        torch.nn.functional.normalize(prefix(features, 3)), torch.nn.functional.normalize(features[:, :3])
    )


def test_widths_reach_criteria_that_ask_for_them():
    loss = {"name": "ProxyAnchorLoss", "args": {"num_classes": 3, "embedding_size": "dim"}}
    criterion = MatryoshkaLoss({"name": "pml", "args": {"loss": loss}}, dims=[2, 8])
    assert [tuple(p.shape) for p in criterion.parameters()] == [(3, 2), (3, 8)]
    assert loss["args"]["embedding_size"] == "dim"  # the config is untouched
    criterion(*batch(0)).backward()
    assert all(p.grad is not None and p.grad.any() for p in criterion.parameters())


def test_categories_reach_the_criteria():
    inner = {"name": "arcface", "args": {"in_features": "dim", "num_classes": 3, "smoothing_epsilon": 0.1}}
    args = {"criterion": inner, "dims": [4, 8]}
    criterion = get_criterion_by_cfg({"name": "matryoshka", "args": args}, label2category={0: "a", 1: "a", 2: "b"})
    assert torch.isfinite(criterion(*batch(0)))


def test_memories_take_the_momentum_embeddings():
    features, labels = batch(0)
    momentum = torch.randn(6, 8)
    criterion = MatryoshkaLoss(XBM, dims=[2, 8])
    criterion(attach(features, momentum), labels)
    for d, inner in zip((2, 8), criterion.criteria, strict=True):
        expected = torch.nn.functional.normalize(momentum[:, :d])
        torch.testing.assert_close(inner.memory.entries(features[:, :d])[0], expected)


def test_its_state_goes_on():
    first, second = MatryoshkaLoss(XBM, dims=[2, 8]), MatryoshkaLoss(XBM, dims=[2, 8])
    first(*batch(0))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(*batch(1)), second(*batch(1)))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"dims": [4, 2]}, r"dims is \[4, 2\], expected rising widths"),
        ({"dims": []}, r"dims is \[\], expected rising widths"),
        ({"dims": [0, 2]}, "dims is 0, expected a whole number of at least 1"),
        ({"dims": [2, 4], "weights": [1.0]}, r"weights is \[1\.0\], expected one for each of the 2 dims"),
        ({"dims": [2], "criterion": {"name": "contrastiv_xbm"}}, "did you mean 'contrastive_xbm'"),
        ({"dims": [2], "criterion": "irt"}, "criterion is 'irt', expected the form"),
    ],
)
def test_wrong_arguments(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        MatryoshkaLoss(**{"criterion": XBM, **wrong})


def test_embeddings_that_are_too_narrow():
    with pytest.raises(ValueError, match=r"features is of width 8, expected at least the largest of dims \[2, 9\]"):
        MatryoshkaLoss(XBM, dims=[2, 9])(*batch(0))
