"""Losses on random batches and memories, beside loops over pairs and a plain list of what was seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from helpers import plain_loops
from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, PMLLoss
from oml_vit_ext.losses.inputs import SHORTEST

LABELS = st.one_of(
    st.just(0),  # one label
    st.integers(0, 2),
    st.integers(0, 100),  # mostly lonely ones
    st.sampled_from([2**62, -(2**62), 2**63 - 1, -(2**63), 0]),
)
ENTRIES = st.one_of(
    st.floats(-2, 2, width=32),
    st.sampled_from([float(np.float32(x)) for x in (0, 1, -1, 0.5, 1e-3, 1e-13, 1e-30, 1e-45, 1e15, -1e30, 3e38)]),
)


@st.composite
def batches(draw: Any, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) in float32 and labels (B,); rows are repeated, turned round and emptied."""
    n, dim = draw(st.integers(1, 7)), draw(st.integers(1, 5)) if dim is None else dim
    rows = draw(hnp.arrays(np.float32, (n, dim), elements=ENTRIES))
    for row in range(1, n):
        match draw(st.integers(0, 9)):
            case 0:
                rows[row] = rows[row - 1]
            case 1:
                rows[row] = -rows[row - 1]
            case 2:
                rows[row] = 0
            case 3:
                rows[row] = rows[row - 1] * np.float32(1 + 1e-6)
    labels = draw(st.lists(LABELS, min_size=n, max_size=n))
    return torch.from_numpy(rows), torch.tensor(labels, dtype=torch.int64)


def plainly(rows: Tensor) -> Tensor:
    """Unit vectors in float64; rows without direction are zero."""
    # A length of just SHORTEST is not below it in float32, though its value in float64 is: as the losses see it.
    seen = rows if rows.dtype == torch.float64 else rows.float()
    rows = (seen * (seen.abs().amax(dim=1, keepdim=True) >= SHORTEST)).double()
    longest = rows.abs().amax(dim=1, keepdim=True)
    return torch.nn.functional.normalize(rows / longest.masked_fill(longest == 0, 1.0))


def has_a_close_call(z: Tensor, past: Tensor, margin: float) -> bool:
    """Whether rounding decides if a pair's loss is zero, so that averages over pairs of non-zero loss may differ."""
    s = z @ torch.cat([z, past]).T
    return bool(((s - margin).abs() < 1e-5).any() or ((s - 1).abs() < 1e-5).fill_diagonal_(False).any())


@fuzz(short=25, long=2_000)
@given(
    st.data(),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 9),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.25, 1.0, 3.0]),
    st.sampled_from(["anchors", "nonzero_pairs"]),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_contrastive_with_its_memory(
    data: Any, dim: int, margin: float, size: int, start: int, weight: float, reduction: str, dtype: torch.dtype
):
    criterion = ContrastiveXBMLoss(margin, size, start, weight, reduction)
    seen, seen_labels = torch.zeros(0, dim, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    n_calls = 0
    for _ in range(data.draw(st.integers(1, 5))):
        rows, labels = data.draw(batches(dim))
        rows = torch.nan_to_num(rows.to(dtype), posinf=1.0, neginf=-1.0)
        training = data.draw(st.booleans())
        criterion.train(training)
        features = rows.clone().requires_grad_()
        loss = criterion(features, labels)
        loss.backward()
        z = plainly(rows).requires_grad_()
        used = slice(max(0, len(seen) - size), None) if n_calls >= start and size else slice(0, 0)
        past, past_labels = seen[used], seen_labels[used]
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.isfinite(loss) and criterion.last_logs["memory_fill"] == min(len(seen), size) / max(1, size)
        if reduction == "anchors" or not has_a_close_call(z.detach(), past, margin):
            # z is of length 1 or 0 already, and the plain formula's own normalisation leaves it so.
            plain = plain_loops.contrastive(z, labels, past, past_labels, margin, weight, reduction)
            torch.testing.assert_close(loss.double(), plain.detach(), rtol=1e-4, atol=1e-4)
        if dtype in (torch.float32, torch.float64):
            assert torch.isfinite(features.grad).all()
        if training:
            seen, seen_labels = torch.cat([seen, z.detach()]), torch.cat([seen_labels, labels])
            n_calls += 1


@fuzz(short=20, long=1_000)
@given(batches(), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from(["anchors", "nonzero_pairs"]))
def test_the_gradient_of_the_contrastive_loss(batch: tuple[Tensor, Tensor], margin: float, reduction: str):
    rows, labels = batch
    z = plainly(rows)
    if has_a_close_call(z, z[:0], margin):
        return
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = ContrastiveXBMLoss(margin, reduction=reduction)(ours, labels)
    plain = plain_loops.contrastive(theirs, labels, z[:0], labels[:0], margin, reduction=reduction)
    (gradient,), (expected,) = torch.autograd.grad(loss, ours), torch.autograd.grad(plain, theirs)
    some = z.abs().sum(dim=1) > 0  # F.normalize multiplies the gradient of a zero vector by 1e12, ours is 0
    torch.testing.assert_close(gradient[some], expected[some], rtol=1e-6, atol=1e-8)
    assert not gradient[~some].any()


@fuzz(short=20, long=1_000)
@given(batches(), st.sampled_from([1e-30, 1e-8, 1.0]), st.sampled_from([torch.float32, torch.float64]))
def test_entropy(batch: tuple[Tensor, Tensor], eps: float, dtype: torch.dtype):
    rows, labels = batch
    features = rows.to(dtype).requires_grad_()
    loss = DifferentialEntropyLoss(eps)(features, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(features.grad).all()
    z = plainly(rows)
    apart = torch.cdist(z, z)[~torch.eye(len(z), dtype=torch.bool)]
    if len(z) > 1 and (dtype == torch.float64 or ((apart > 1e-3) | (apart == 0)).all()):
        # Distances near float32's resolution differ by much in their logarithm, whatever the formula.
        unit = z if dtype == torch.float64 else torch.nn.functional.normalize(z)
        plain = torch.stack(
            [(unit[i] - unit[[j for j in range(len(unit)) if j != i]]).norm(dim=1).min() for i in range(len(unit))]
        )
        expected = -(plain + eps).log().mean()
        if (plain > 1e-6).all():
            torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=1e-3)


@fuzz(short=15, long=600)
@given(st.lists(batches(dim=3), min_size=1, max_size=4), st.integers(0, 8), st.sampled_from([0.0, 0.7, 4.0]))
def test_irt_is_the_sum_of_both(steps: list[tuple[Tensor, Tensor]], size: int, weight: float):
    both, contrastive, entropy = (
        IRTLoss(memory_size=size, entropy_weight=weight),
        ContrastiveXBMLoss(memory_size=size),
        DifferentialEntropyLoss(),
    )
    for rows, labels in steps:
        expected = contrastive(rows, labels) + weight * entropy(rows, labels)
        torch.testing.assert_close(both(rows, labels), expected)


@fuzz(short=15, long=600)
@given(st.lists(batches(dim=2), min_size=1, max_size=4), st.integers(0, 8), st.integers(0, 8), st.integers(0, 5))
def test_a_saved_memory_goes_on(steps: list[tuple[Tensor, Tensor]], size: int, other_size: int, start: int):
    """In a memory of the same size exactly; in one of another size with the newest entries that fit."""
    saved = ContrastiveXBMLoss(memory_size=size, memory_start=start)
    for rows, labels in steps:
        saved(rows, labels)
    loaded = ContrastiveXBMLoss(memory_size=other_size, memory_start=start)
    loaded.load_state_dict(saved.state_dict())
    seen = torch.cat([plainly(rows) for rows, _ in steps]), torch.cat([labels for _, labels in steps])
    held = min(size, other_size, len(seen[0]))
    assert len(loaded.memory) == held and loaded.memory.n_calls == len(steps)
    z, their_labels = loaded.memory.entries(steps[0][0])
    keys = sorted((label, *map(float, row)) for label, row in zip(their_labels.tolist(), z.double(), strict=True))
    newest = zip(seen[1].tolist()[len(seen[1]) - held :], seen[0][len(seen[0]) - held :], strict=True)
    expected = sorted((label, *map(float, row)) for label, row in newest)
    assert [key[0] for key in keys] == [key[0] for key in expected]
    if size == other_size:
        rows, labels = steps[0]
        torch.testing.assert_close(loaded(rows, labels), saved(rows, labels), rtol=0, atol=0)


def triplets(z: Tensor, labels: Tensor, past: Tensor, past_labels: Tensor, margin: float) -> Tensor:
    """The triplet loss over a batch and its references, averaged over the triplets of non-zero loss."""
    others, other_labels = torch.cat([z, past]), torch.cat([labels, past_labels])
    losses = [
        (z[a] - others[p]).norm() - (z[a] - others[n]).norm() + margin
        for a in range(len(z))
        for p in range(len(others))
        for n in range(len(others))
        if p != a and other_labels[p] == labels[a] and other_labels[n] != labels[a]
    ]
    above = [loss for loss in losses if loss > 0]
    return torch.stack(above).mean() if above else z.sum() * 0


PML = {
    "contrastive": PMLLoss(
        {"name": "ContrastiveLoss", "args": {"pos_margin": 1, "neg_margin": 0.5}},
        distance={"name": "CosineSimilarity"},
        memory_size=6,
    ),
    "triplets": PMLLoss({"name": "TripletMarginLoss", "args": {"margin": 0.2}}, memory_size=6),
}


@pytest.mark.parametrize("name", sorted(PML))
@fuzz(short=10, long=400)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_pml_with_a_memory(name: str, seed: int, steps: list[list[int]]):
    criterion, rng = PML[name], torch.Generator().manual_seed(seed)
    criterion.memory.reset()
    seen, seen_labels = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for given_labels in steps:
        rows, labels = torch.randn(len(given_labels), 3, generator=rng), torch.tensor(given_labels)
        loss = criterion(rows, labels)
        z, past, past_labels = plainly(rows), plainly(seen[-6:]), seen_labels[-6:]
        same = labels[:, None] == torch.cat([labels, past_labels])
        if name == "contrastive" and same.sum() - len(labels) <= 1 and (~same).sum() <= 1:
            expected = torch.tensor(0.0)  # the library's own rule: a single pair of each kind is no batch
        elif name == "triplets":
            expected = triplets(z, labels, past, past_labels, 0.2)
        else:
            expected = plain_loops.contrastive(z, labels, past, past_labels, 0.5, reduction="nonzero_pairs")
        torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-3, atol=1e-4)
        seen, seen_labels = torch.cat([seen, rows]), torch.cat([seen_labels, labels])
    assert len(criterion.memory) == min(6, len(seen))


OTHER_PML = [
    {"name": "MultiSimilarityLoss"},
    {"name": "NTXentLoss"},
    {"name": "CircleLoss"},
    {"name": "SupConLoss"},
    {"name": "NCALoss"},
    {"name": "MarginLoss"},
    {"name": "TupletMarginLoss"},
]


@fuzz(short=15, long=800)
@given(
    st.sampled_from(OTHER_PML),
    st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_other_losses_of_pml_stay_finite(loss: dict[str, Any], steps: list[list[int]], seed: int):
    criterion, rng = PMLLoss(loss, memory_size=5), torch.Generator().manual_seed(seed)
    for labels in steps:
        rows = torch.randn(len(labels), 4, generator=rng).requires_grad_()
        value = criterion(rows, labels)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(rows.grad).all()
    assert len(criterion.memory) == min(5, sum(map(len, steps)))


CRITERIA = {
    "contrastive_xbm": lambda: ContrastiveXBMLoss(memory_size=4),
    "entropy": DifferentialEntropyLoss,
    "irt": lambda: IRTLoss(memory_size=4),
    "pml": lambda: PMLLoss({"name": "TripletMarginLoss"}, memory_size=4),
}
ODD_FEATURES = st.one_of(
    ODD_VALUES,
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)).map(torch.from_numpy),
    hnp.arrays(st.sampled_from([np.int64, np.uint8, np.bool_, np.complex64, np.float16]), (2, 2)).map(torch.from_numpy),
    hnp.arrays(np.float32, (2, 2), elements=st.sampled_from([np.nan, np.inf, 1.0])),
)
ODD_LABELS = st.one_of(
    ODD_VALUES,
    st.lists(ODD_VALUES, min_size=1, max_size=3),
    st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=3),
    hnp.arrays(
        st.sampled_from(
            [np.int8, np.uint8, np.uint16, np.uint32, np.uint64, np.int64, np.float32, np.bool_, np.complex64]
        ),
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
    ).map(lambda labels: torch.from_numpy(labels)),
    hnp.arrays(st.sampled_from([np.int64, np.uint64, np.float64, "U3", "O", "M8[D]"]), (2,)),
)


@pytest.mark.parametrize("name", sorted(CRITERIA))
@fuzz(short=25, long=1_000)
@given(features=st.one_of(st.just(torch.eye(2)), ODD_FEATURES), labels=st.one_of(st.just([0, 1]), ODD_LABELS))
def test_what_is_no_batch_is_refused(name: str, features: Any, labels: Any):
    criterion = CRITERIA[name]()
    loss = result_or_refusal(lambda: criterion(features, labels))
    assert isinstance(loss, Refusal) or (loss.ndim == 0 and torch.isfinite(loss))
    if isinstance(loss, Refusal) and name != "entropy":
        assert len(criterion.memory) == 0, "a batch that was refused entered the memory"


@fuzz(short=40, long=2_000)
@given(
    st.sampled_from([ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss]),
    st.dictionaries(
        st.sampled_from(
            ["margin", "memory_size", "memory_start", "memory_weight", "reduction", "entropy_weight", "eps"]
        ),
        ODD_VALUES,
        max_size=3,
    ),
)
def test_odd_arguments_are_refused(kind: Any, given_args: dict[str, Any]):
    import inspect

    known = inspect.signature(kind).parameters
    args = {name: value for name, value in given_args.items() if name in known}
    if args.get("memory_size", 0) in (2**31, 2**63, 2**64):
        args["memory_size"] = 3
    criterion = result_or_refusal(lambda: kind(**args))
    if not isinstance(criterion, Refusal):
        assert torch.isfinite(criterion(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), [0, 1]))
