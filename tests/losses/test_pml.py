from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.losses import CrossBatchMemory
from torch import Tensor, nn

import oml_vit_ext
from oml_vit_ext.common.momentum_embeddings import attach
from oml_vit_ext.losses import PMLLoss

CLASSES = {"num_classes": 4, "embedding_size": 8}
N_PAIRS = torch.arange(4).repeat_interleave(4)


def part(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


# Of every kind: pairs, triplets, n-tuples, softmax with class centres, proxies, ranking, histograms; with every part.
KINDS: dict[str, dict[str, Any]] = {
    "pairs": {"loss": part("ContrastiveLoss", neg_margin=0.8)},
    "pairs, similarity": {
        "loss": part("ContrastiveLoss", pos_margin=1, neg_margin=0.2),
        "distance": part("CosineSimilarity"),
    },
    "pairs, weighted": {"loss": part("MultiSimilarityLoss"), "miner": part("MultiSimilarityMiner", epsilon=0.2)},
    "circle": {"loss": part("CircleLoss"), "reducer": part("MeanReducer")},
    "triplets": {
        "loss": part("TripletMarginLoss", margin=0.3),
        "distance": part("LpDistance", p=1),
        "reducer": part("ThresholdReducer", low=0),
        "miner": part("BatchHardMiner"),
        "regularizer": part("LpRegularizer"),
    },
    "margin, learnt": {"loss": part("MarginLoss", learn_beta=True, num_classes=4)},
    "softmax over pairs": {"loss": part("NTXentLoss", temperature=0.2)},
    "supervised contrastive": {"loss": part("SupConLoss"), "memory_size": 24},
    "angular margin": {"loss": part("ArcFaceLoss", **CLASSES), "regularizer": part("RegularFaceRegularizer")},
    "sub-centres": {"loss": part("SubCenterArcFaceLoss", **CLASSES)},
    "cosine margin": {"loss": part("CosFaceLoss", **CLASSES)},
    "normalised softmax": {"loss": part("NormalizedSoftmaxLoss", **CLASSES)},
    "proxies": {"loss": part("ProxyAnchorLoss", **CLASSES)},
    "soft triple": {
        "loss": part("SoftTripleLoss", centers_per_class=3, **CLASSES),
        "regularizer": part("SparseCentersRegularizer", num_classes=4, centers_per_class=3),
    },
    "ranking": {"loss": part("SmoothAPLoss", temperature=0.1)},
    "histogram": {"loss": part("DynamicSoftMarginLoss")},
    "average precision": {"loss": part("FastAPLoss")},
}
WITH_PARAMETERS = {
    "margin, learnt": 1,
    "angular margin": 1,
    "sub-centres": 1,
    "cosine margin": 1,
    "normalised softmax": 1,
    "proxies": 1,
    "soft triple": 1,
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains(kind: str) -> None:
    """Features and the loss's own parameters, by one optimizer, as OML's pipeline does."""
    torch.manual_seed(0)
    criterion, model = PMLLoss(**KINDS[kind]), nn.Linear(12, 8)
    assert len(list(criterion.parameters())) == WITH_PARAMETERS.get(kind, 0)
    before = {name: value.detach().clone() for name, value in criterion.named_parameters()}
    optimizer = torch.optim.Adam([*model.parameters(), *criterion.parameters()], lr=0.02)
    images = torch.randn(4, 12).repeat_interleave(4, 0) + torch.randn(16, 12)
    losses = []
    for _ in range(30):
        loss = criterion(model(images), N_PAIRS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[2:7])
    assert all((value != before[name]).any() for name, value in criterion.named_parameters())
    assert set(before) <= set(criterion.state_dict())


WITH_MEMORY: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "contrastive": (part("ContrastiveLoss"), None),
    "triplet": (part("TripletMarginLoss"), part("TripletMarginMiner", margin=0.4)),
    "multi-similarity": (part("MultiSimilarityLoss"), part("MultiSimilarityMiner")),
    "circle": (part("CircleLoss"), None),
    "NT-Xent": (part("NTXentLoss"), part("PairMarginMiner")),
    "hard": (part("TripletMarginLoss", margin=0.2), part("BatchHardMiner")),
}


def batches(n: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 6, generator=generator, requires_grad=True), torch.randint(3, (8,), generator=generator))
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", WITH_MEMORY)
@pytest.mark.parametrize("memory_size", [5, 16, 100])
def test_the_memory_does_what_the_librarys_own_does(name: str, memory_size: int) -> None:
    """There the memory includes the current batch, so it must be one batch larger."""
    loss, miner = WITH_MEMORY[name]
    criterion = PMLLoss(loss, miner=miner, memory_size=memory_size)
    peer_miner = None if miner is None else getattr(miners, miner["name"])(**miner["args"])
    peer = CrossBatchMemory(getattr(losses, loss["name"])(**loss["args"]), 6, memory_size + 8, miner=peer_miner)
    for features, labels in batches(7):
        ours, expected = criterion(features, labels), peer(features, labels)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        (gradient,), (expected_gradient,) = (torch.autograd.grad(one, features) for one in (ours, expected))
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_continues_exactly() -> None:
    config: dict[str, Any] = {"loss": part("MultiSimilarityLoss"), "memory_size": 20}
    data, whole = batches(8), PMLLoss(**config)
    expected = [whole(*one) for one in data]
    first, second = PMLLoss(**config), PMLLoss(**config)
    for one in data[:5]:
        first(*one)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [second(*one) for one in data[5:]] == expected[5:]


def test_evaluation_leaves_the_memory_alone() -> None:
    criterion = PMLLoss(part("ContrastiveLoss"), memory_size=20)
    (features, labels), (later, later_labels) = batches(2)
    criterion(features, labels)
    criterion.eval()
    assert criterion(later, later_labels) == criterion(later, later_labels)
    assert len(criterion.memory) == 8


def test_momentum_features_enter_the_memory_instead() -> None:
    criterion = PMLLoss(part("ContrastiveLoss"), memory_size=20)
    momentum = torch.randn(4, 6)
    features = attach(torch.randn(4, 6), momentum)
    criterion(features, [0, 0, 1, 1])
    assert (criterion.memory.entries(features)[0] == momentum).all()


def test_momentum_features_of_another_shape_are_refused() -> None:
    features = attach(torch.randn(4, 6), torch.randn(4, 5))
    with pytest.raises(ValueError, match=r"momentum embeddings is \(4, 5\), expected the embeddings' shape \(4, 6\)"):
        PMLLoss(part("ContrastiveLoss"), memory_size=20)(features, [0, 0, 1, 1])


def test_the_histogram_of_dynamic_soft_margin_is_saved() -> None:
    config = {"loss": part("DynamicSoftMarginLoss")}
    data = batches(4)
    first, second = PMLLoss(**config), PMLLoss(**config)
    for one in data[:3]:
        first(*one)
    second.load_state_dict(first.state_dict())
    assert first(*data[3]) == second(*data[3])


def test_float32_under_autocast() -> None:
    features, labels = batches(1)[0]
    criterion = PMLLoss(part("ArcFaceLoss", num_classes=3, embedding_size=6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = criterion(features.bfloat16(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, criterion(features.bfloat16().float(), labels))


def test_logs() -> None:
    criterion = PMLLoss(part("TripletMarginLoss"), miner=part("BatchHardMiner"), memory_size=32)
    for features, labels in batches(2):
        criterion(features, labels)
    assert criterion.last_logs == {"memory_fill": 0.25, "mined": 8.0}


@pytest.mark.parametrize("labels", [[0, 1, 2, 4], [-1, 0, 1, 2]])
def test_labels_beyond_the_classes_are_refused(labels: list[int]) -> None:
    for name in ("ArcFaceLoss", "NormalizedSoftmaxLoss", "SoftTripleLoss"):
        criterion = PMLLoss(part(name, **CLASSES))
        for _ in range(2):
            with pytest.raises(
                ValueError, match=rf"labels is from -?\d to \d, expected from 0 to 3 for {name} with num_classes=4."
            ):
                criterion(torch.randn(4, 8), labels)
            criterion(torch.randn(4, 8), [0, 1, 2, 3])


def test_a_memory_for_a_loss_that_compares_with_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_size is 9, expected 0 for ArcFaceLoss, .* TripletMarginLoss"):
        PMLLoss(part("ArcFaceLoss", **CLASSES), memory_size=9)


def test_the_library_is_imported_when_a_loss_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second or more, which nobody else should wait for."""
    monkeypatch.setattr(oml_vit_ext, "losses", oml_vit_ext.losses)  # put back at the end, as are the modules
    for name in [name for name in sys.modules if name.startswith("oml_vit_ext.losses")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("pytorch_metric_learning")]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    fresh = importlib.import_module("oml_vit_ext.losses")
    assert fresh.PMLLoss is not PMLLoss
    fresh.IRTLoss(memory_size=4)(torch.eye(4), [0, 0, 1, 1])
    with pytest.raises(ImportError, match="pytorch_metric_learning"):
        fresh.PMLLoss(part("TripletMarginLoss"))


@pytest.mark.parametrize("name", ["TripletMarginLoss", "MarginLoss"])
def test_triplets_drawn_at_random_do_not_go_with_a_memory(name: str):
    loss = part(name, triplets_per_anchor=2)
    with pytest.raises(ValueError, match="triplets_per_anchor is 2, expected 'all' with a memory"):
        PMLLoss(loss, memory_size=8)
    assert torch.isfinite(PMLLoss(loss)(torch.randn(4, 3), [0, 0, 1, 1]))
    PMLLoss(part(name, triplets_per_anchor="all"), memory_size=8)
