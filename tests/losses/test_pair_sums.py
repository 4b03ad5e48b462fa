from __future__ import annotations

import pytest
import torch

from helpers import plain_loops
from oml_vit_ext.losses import contrastive_loss, pair_sums
from oml_vit_ext.losses.inputs import unit_vectors


@pytest.mark.parametrize("self_start", [None, 2])
def test_the_sums_equal_loops_over_pairs(self_start: int | None) -> None:
    z, labels = plain_loops.random_unit(5, 3), torch.randint(3, (5,))
    columns, column_labels = plain_loops.random_unit(9, 3), torch.randint(3, (9,))
    slopes, gradient = torch.zeros(2, 3), torch.zeros(2, 5, 3)  # positive pairs, negative pairs
    for i in range(5):
        for j in range(9):
            s = float(z[i] @ columns[j])
            same = bool(labels[i] == column_labels[j])
            slope = -1 if same else float(s > 0.2)
            if self_start is None or j != i + self_start:
                slopes[int(not same)] += torch.tensor([slope * (s - 0.2), slope**2, slope])
                gradient[int(not same), i] += slope * columns[j]
    split = pair_sums.pair_sums(z, labels, columns, column_labels, 0.2, self_start=self_start, split=True)
    whole = pair_sums.pair_sums(z, labels, columns, column_labels, 0.2, self_start=self_start)
    torch.testing.assert_close(split.slopes, slopes)
    torch.testing.assert_close(split.gradient, gradient)
    torch.testing.assert_close(whole.slopes, slopes.sum(dim=0, keepdim=True))
    torch.testing.assert_close(whole.gradient, gradient.sum(dim=0, keepdim=True))
    without = pair_sums.pair_sums(z, labels, columns, column_labels, 0.2, self_start=self_start, with_gradient=False)
    assert without.gradient is None and (without.slopes == whole.slopes).all()


@pytest.mark.parametrize("reduction", ["anchors", "nonzero_pairs"])
@pytest.mark.parametrize("slab_rows", [1, 3, 7, 8, 50, 51, 1000])
def test_the_slab_size_does_not_matter(reduction: str, slab_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_sums, "CPU_SLAB", 7 * slab_rows)
    features = torch.randn(7, 4, requires_grad=True)
    labels, memory_labels = torch.randint(3, (7,)), torch.randint(3, (50,))
    memory = plain_loops.random_unit(50, 4)
    ours = contrastive_loss(
        unit_vectors(features),
        labels,
        memory=memory,
        memory_labels=memory_labels,
        margin=0.1,
        reduction=reduction,
    )
    plain = plain_loops.contrastive(features, labels, memory, memory_labels, 0.1, 1.0, reduction)
    plain_loops.assert_same(ours.loss, plain, features)


@pytest.mark.parametrize("leave_out_idle", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.5, 0.9, 1.0])
def test_a_memory_far_larger_than_a_slab(margin: float, leave_out_idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_sums, "may_wait_for_values", lambda device: leave_out_idle)
    # Dense but vectorised: loops over 16 x 80 000 pairs would take minutes.
    features = torch.randn(16, 32, requires_grad=True)
    centre = torch.randn(32)
    memory = torch.nn.functional.normalize(torch.randn(80_000, 32) + centre)
    labels, memory_labels = torch.randint(40, (16,)), torch.randint(40, (80_000,))
    z = torch.nn.functional.normalize(features)
    s, same = z @ memory.T, labels[:, None] == memory_labels
    s_batch, same_batch = z @ z.T, labels[:, None] == labels
    pairs = torch.where(same, 1 - s, (s - margin).clamp(min=0)).sum()
    pairs_batch = torch.where(same_batch, 1 - s_batch, (s_batch - margin).clamp(min=0))
    plain = (pairs + (pairs_batch * (1 - torch.eye(16))).sum()) / 16
    ours = contrastive_loss(unit_vectors(features), labels, memory=memory, memory_labels=memory_labels, margin=margin)
    (gradient,) = torch.autograd.grad(ours.loss, features)
    (gradient_plain,) = torch.autograd.grad(plain, features)
    torch.testing.assert_close(ours.loss, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, gradient_plain, rtol=1e-5, atol=1e-5 * float(gradient_plain.abs().max()))


def test_a_nan_is_not_lost() -> None:
    memory = plain_loops.random_unit(100, 4)
    memory[7, 2] = torch.nan
    z, labels = plain_loops.random_unit(4, 4), torch.arange(4)
    result = contrastive_loss(z, labels, memory=memory, memory_labels=torch.full((100,), 9), margin=1.0)
    assert result.loss.isnan()
