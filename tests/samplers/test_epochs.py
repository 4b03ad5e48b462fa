"""Both samplers learn of the epoch in one way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oml_vit_ext.samplers import GroupSizeSampler, HardTuplesSampler, NearestPairsSampler
from oml_vit_ext.samplers.epochs import EpochBatchSampler


class Epochs(EpochBatchSampler):
    """One batch: the number of the epoch."""

    batch_size = 1

    def __init__(self) -> None: ...

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[int]]:
        yield [self._next_epoch()]


def test_iterations_are_counted_as_epochs():
    sampler, other = Epochs(), Epochs()
    assert [list(sampler) for _ in range(3)] == [[[0]], [[1]], [[2]]]
    assert list(other) == [[0]], "each sampler counts for itself"


def test_the_trainer_knows_better():
    sampler, epoch = Epochs(), 7
    list(sampler)
    sampler.follow_epochs(lambda: epoch)
    assert list(sampler) == [[7]] == list(sampler)
    epoch = 8
    assert list(sampler) == [[8]]


@pytest.mark.parametrize("sampler", [GroupSizeSampler, HardTuplesSampler, NearestPairsSampler])
def test_our_samplers_follow_the_epochs_of_a_trainer(sampler: type):
    assert issubclass(sampler, EpochBatchSampler)
