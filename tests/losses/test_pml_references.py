"""A memory with every loss, miner, distance and reducer that the library can build, against plain re-computation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor

from oml_vit_ext.losses import PMLLoss
from oml_vit_ext.losses.pml_parts import names_with_memory, offered

B, M, D = 6, 9, 8
LABELS = torch.tensor([0, 0, 1, 1, 2, 3])  # the last has a positive in the memory only, the one before it has none
MEMORY_LABELS = torch.tensor([0, 1, 1, 3, 3, 0, 1, 4, 4])
LOSSES = sorted(names_with_memory())
MINERS: dict[str, dict[str, Any]] = {
    "no": {},
    **{name: {} for name in sorted(offered("miner"))},
    "BatchEasyHardMiner, all positives": {"pos_strategy": "all", "neg_strategy": "hard"},
    "BatchEasyHardMiner, semihard": {"pos_strategy": "semihard", "neg_strategy": "hard"},
}
DISTANCES: list[dict[str, Any] | None] = [
    None,
    {"name": "LpDistance", "args": {"p": 1, "power": 2}},
    {"name": "CosineSimilarity"},
    {"name": "DotProductSimilarity"},
    {"name": "SNRDistance"},
]
CLASS_WEIGHTS = [1.0, 2.0, 0.5, 3.0, 1.0]
REDUCERS: list[dict[str, Any] | None] = [
    None,
    {"name": "MeanReducer"},
    {"name": "SumReducer"},
    {"name": "AvgNonZeroReducer"},
    {"name": "ThresholdReducer", "args": {"low": 0.05, "high": 3.0}},
    {"name": "PerAnchorReducer"},
    {"name": "ClassWeightedReducer", "args": {"weights": CLASS_WEIGHTS}},
    {"name": "DivisorReducer"},
]


def data() -> tuple[Tensor, Tensor]:
    """A batch and a memory; the memory's are nearer to the batch than chance, so that miners find something."""
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(5, D, generator=generator)
    batch = centres[LABELS] + torch.randn(B, D, generator=generator)
    return batch.requires_grad_(), centres[MEMORY_LABELS] + torch.randn(M, D, generator=generator)


def librarys_own(kind: Any, config: dict[str, Any] | None) -> Any:
    if config is None:
        return None
    args = {key: torch.tensor(value) if key == "weights" else value for key, value in config.get("args", {}).items()}
    return getattr(kind, config["name"])(**args)


def per_anchor(miner: Any, batch: Tensor, references: Tensor, labels: Tensor, reference_labels: Tensor) -> list[Tensor]:
    """Each anchor on its own, against all references but itself, the batch's rows first."""
    found = []
    for anchor in range(len(batch)):
        others = [i for i in range(len(references)) if i != anchor]
        of_anchor = miner(batch[[anchor]], labels[[anchor]], references[others], reference_labels[others])
        at = torch.tensor(others)
        triplets = len(of_anchor) == 3
        found.append(
            [
                torch.full_like(one, anchor) if i == 0 or (i == 2 and not triplets) else at[one]
                for i, one in enumerate(of_anchor)
            ]
        )
    return [torch.cat(column) for column in zip(*found, strict=True)]


def plain_pairs(reference_labels: Tensor) -> list[Tensor]:
    pairs = [(a, r) for a in range(B) for r in range(len(reference_labels)) if a != r]
    same = [(a, r) for a, r in pairs if LABELS[a] == reference_labels[r]]
    other = [(a, r) for a, r in pairs if LABELS[a] != reference_labels[r]]
    return [torch.tensor(column) for column in (*zip(*same, strict=True), *zip(*other, strict=True))]


def plain_tuples(name: str, batch: Tensor, references: Tensor, reference_labels: Tensor) -> list[Tensor]:
    if name == "no":
        return plain_pairs(reference_labels)
    miner = getattr(miners, name.split(",")[0])(**MINERS[name])
    if name == "HDCMiner":  # a share of all pairs, so not anchor by anchor
        a1, p, a2, n = plain_pairs(reference_labels)
        far = torch.cdist(*(torch.nn.functional.normalize(one) for one in (batch, references)))
        hard = far[a1, p].topk(math.ceil(len(p) / 2)).indices
        near = far[a2, n].topk(math.ceil(len(n) / 2), largest=False).indices
        return [a1[hard], p[hard], a2[near], n[near]]
    return per_anchor(miner, batch, references, LABELS, reference_labels)


def criterion(loss: str, miner: str, distance: Any, reducer: Any, **loss_args: Any) -> PMLLoss | None:
    """With the memory filled; ``None`` if these cannot work, in which case the library fails on a batch as well."""
    config = None if miner == "no" else {"name": miner.split(",")[0], "args": MINERS[miner]}
    try:
        built = PMLLoss({"name": loss, "args": loss_args}, distance, reducer, config, memory_size=M)
    except ValueError:
        with pytest.raises(Exception):  # noqa: B017  (the library has no one kind)
            own = {"distance": librarys_own(distances, distance), "reducer": librarys_own(reducers, reducer)}
            batch, _ = data()
            librarys = getattr(losses, loss)(**{key: part for key, part in own.items() if part is not None})
            librarys(batch, LABELS)
        return None
    built.memory.enqueue(data()[1], MEMORY_LABELS)
    return built.train()


def per_anchor_mean(part: dict[str, Any]) -> Any:
    """Of each anchor the mean over its pairs, each counted once, then the mean over all anchors."""
    if not torch.is_tensor(part["losses"]):
        return 0
    values = part["losses"].flatten()
    if part["reduction_type"] == "element":
        return values.mean()
    pairs = zip(*(one.tolist() for one in part["indices"]), strict=True)
    distinct = dict(zip(pairs, values, strict=True))
    of_anchors = [[value for (a, _), value in distinct.items() if a == anchor] for anchor in range(B)]
    return sum(torch.stack(one).mean() for one in of_anchors if one) / B


def class_weighted_mean(part: dict[str, Any]) -> Any:
    """Each value times the weight of its anchor's class."""
    if not torch.is_tensor(part["losses"]):
        return 0
    anchors = part["indices"] if part["reduction_type"] == "element" else part["indices"][0]
    weights = [CLASS_WEIGHTS[int(LABELS[anchor])] for anchor in anchors]
    return sum(w * value for w, value in zip(weights, part["losses"].flatten(), strict=True)) / len(weights)


PLAIN_REDUCERS = {"PerAnchorReducer": per_anchor_mean, "ClassWeightedReducer": class_weighted_mean}


def sampled(miner: str) -> bool:
    return miner in ("DistanceWeightedMiner", "UniformHistogramMiner")


@pytest.mark.parametrize("miner", [name for name in MINERS if not sampled(name)])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient(loss: str, miner: str) -> None:
    """Tuples found anchor by anchor, then the library's loss on them, reduced plainly where its reducer is wrong."""
    batch, memory = data()
    references, reference_labels = torch.cat([batch.detach(), memory]), torch.cat([LABELS, MEMORY_LABELS])
    tuples = plain_tuples(miner, batch.detach(), references, reference_labels)
    compared = 0
    for distance in DISTANCES:
        for reducer in REDUCERS:
            ours = criterion(loss, miner, distance, reducer)
            if ours is None or loss == "NCALoss":
                continue
            plain = PLAIN_REDUCERS.get((reducer or {}).get("name", ""))
            own = reducers.DoNothingReducer() if plain else librarys_own(reducers, reducer)
            parts = {"distance": librarys_own(distances, distance), "reducer": own}
            theirs = getattr(losses, loss)(**{key: part for key, part in parts.items() if part is not None})
            expected = theirs(batch, LABELS, tuple(tuples), references, reference_labels)
            if plain:
                expected = sum((plain(one) for one in expected.values()), start=0 * batch.sum())
            value = ours(batch, LABELS)
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, msg=f"{distance}, {reducer}")
            (found,), (wanted,) = (torch.autograd.grad(one, batch) for one in (value, expected))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=f"{distance}, {reducer}")
            compared += bool(expected > 0)
    assert compared or loss == "NCALoss"


def test_nca_against_a_plain_loop() -> None:
    batch, memory = data()
    references, reference_labels = torch.cat([batch.detach(), memory]), torch.cat([LABELS, MEMORY_LABELS])
    terms = []
    for a in range(B):
        others = [r for r in range(B + M) if r != a]
        rows = torch.nn.functional.normalize(batch[a], dim=0), torch.nn.functional.normalize(references[others], dim=1)
        shares = (-(rows[0] - rows[1]).pow(2).sum(1)).softmax(0)
        right = shares[reference_labels[others] == LABELS[a]].sum()
        if right > 0:
            terms.append(-right.log())
    built = criterion("NCALoss", "no", None, None)
    assert built is not None and len(terms) == 5
    torch.testing.assert_close(built(batch, LABELS), torch.stack(terms).mean())


@pytest.mark.parametrize("miner", ["no", "TripletMarginMiner", "BatchHardMiner"])
def test_swap_against_a_plain_loop(miner: str) -> None:
    batch, memory = data()
    references, reference_labels = torch.cat([batch.detach(), memory]), torch.cat([LABELS, MEMORY_LABELS])
    tuples = plain_tuples(miner, batch.detach(), references, reference_labels)
    triplets = list(zip(*(one.tolist() for one in tuples), strict=False))
    if len(tuples) == 4:
        positives, negatives = torch.stack(tuples[:2], dim=1).tolist(), torch.stack(tuples[2:], dim=1).tolist()
        triplets = [(a, p, n) for a, p in positives for b, n in negatives if a == b]
    normalised, constant = torch.nn.functional.normalize(batch), torch.nn.functional.normalize(references)
    violations = []
    for a, p, n in triplets:
        far = torch.minimum((normalised[a] - constant[n]).norm(), (constant[p] - constant[n]).norm())
        violations.append(((normalised[a] - constant[p]).norm() - far + 0.4).relu())
    found = torch.stack(violations)
    built = criterion("TripletMarginLoss", miner, None, None, margin=0.4, swap=True)
    assert built is not None
    value, expected = built(batch, LABELS), found[found > 0].mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, batch)[0] for one in (value, expected)), rtol=1e-4, atol=1e-6)


def test_per_anchor_reducer_against_a_plain_loop() -> None:
    batch, memory = data()
    references, reference_labels = torch.cat([batch.detach(), memory]), torch.cat([LABELS, MEMORY_LABELS])
    far = torch.cdist(*(torch.nn.functional.normalize(one) for one in (batch, references)))
    value = torch.zeros(())
    for a in range(B):
        positive = [far[a, r] for r in range(B + M) if r != a and reference_labels[r] == LABELS[a]]
        negative = [(1 - far[a, r]).relu() for r in range(B + M) if reference_labels[r] != LABELS[a]]
        value = value + sum(torch.stack(one).mean() for one in (positive, negative) if one) / B
    built = criterion("ContrastiveLoss", "no", None, {"name": "PerAnchorReducer"})
    assert built is not None
    torch.testing.assert_close(built(batch, LABELS), value)


@pytest.mark.parametrize("miner", ["DistanceWeightedMiner", "UniformHistogramMiner"])
@pytest.mark.parametrize("loss", LOSSES)
def test_sampled_tuples_are_of_two_images_and_none_is_lost(loss: str, miner: str) -> None:
    batch, memory = data()
    reference_labels = torch.cat([LABELS, MEMORY_LABELS])
    built = criterion(loss, miner, None, None)
    assert built is not None and built.miner is not None
    torch.manual_seed(0)
    references = torch.cat([batch.detach(), memory])
    tuples = built.miner(batch, LABELS, references, reference_labels)
    assert (tuples[0] != tuples[1]).all()
    assert (LABELS[tuples[0]] == reference_labels[tuples[1]]).all()
    assert (LABELS[tuples[-2 if len(tuples) == 4 else 0]] != reference_labels[tuples[-1]]).all()
    assert set(tuples[0].tolist()) <= {0, 1, 2, 3, 5}
    assert len(set(tuples[0].tolist())) >= 4
    value = built(batch, LABELS)
    assert value > 0 and value.isfinite()
    assert torch.autograd.grad(value, batch)[0].isfinite().all()


def test_the_easiest_positive_is_another_image() -> None:
    """In the library's own memory every image is its own easiest positive, and the loss is 0."""
    batch, _ = data()
    built = criterion("ContrastiveLoss", "BatchEasyHardMiner", None, {"name": "SumReducer"})
    assert built is not None
    assert built(batch, LABELS) > 0
    assert built.last_logs["mined"] > 0


@pytest.mark.parametrize(
    ("loss", "reducer"), [("TripletMarginLoss", "PerAnchorReducer"), ("ContrastiveLoss", "DivisorReducer")]
)
def test_parts_that_cannot_work_are_refused_when_they_are_built(loss: str, reducer: str) -> None:
    with pytest.raises(ValueError, match=rf"memory_size is 9, expected 0 for {loss}, {reducer}: together they cannot"):
        PMLLoss({"name": loss}, reducer={"name": reducer}, memory_size=9)


def test_building_leaves_no_trace() -> None:
    """The trial at the beginning draws no random numbers and changes no parameter."""
    config: dict[str, Any] = {"loss": {"name": "MarginLoss", "args": {"learn_beta": True, "num_classes": 5}}}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    built = PMLLoss(**config, miner={"name": "DistanceWeightedMiner"}, memory_size=M)
    assert (torch.get_rng_state() == before).all()
    assert len(built.memory) == 0 and built.loss.beta.grad is None


@pytest.mark.parametrize("memory_size", [0, 5])
def test_neighbourhood_components_of_lonely_labels_are_zero(memory_size: int) -> None:
    """The library's own loss is the mean of nothing there, which is NaN."""
    built = PMLLoss({"name": "NCALoss"}, memory_size=memory_size)
    batch = torch.randn(3, 4, requires_grad=True)
    value = built(batch, torch.tensor([0, 1, 2]))
    value.backward()
    assert value == 0 and not batch.grad.any()
