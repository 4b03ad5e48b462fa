from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor

from oml_vit_ext.losses import FeatureMemory


def batch(start: int, n: int, dim: int = 3) -> tuple[Tensor, Tensor]:
    """Rows that carry their own number, so that it can be seen where they went."""
    labels = torch.arange(start, start + n)
    return labels[:, None].float().repeat(1, dim), labels


def in_order(memory: FeatureMemory) -> list[int]:
    """The labels, oldest first, after checking that the features belong to them."""
    features, labels = memory.entries(torch.zeros(1, 3))
    assert (features == labels[:, None]).all()
    position = int(memory.state_dict()["position"])
    return torch.roll(labels, -position, 0).tolist() if len(memory) == memory.size else labels.tolist()


@pytest.mark.parametrize("sizes", [[1], [3, 3, 3], [4, 5, 1, 7], [7, 7], [20], [2, 30, 3], [6, 1, 1, 1]])
def test_the_last_entries_are_kept_first_in_first_out(sizes: list[int]) -> None:
    memory, seen = FeatureMemory(7), []
    for size in sizes:
        memory.enqueue(*batch(len(seen), size))
        seen += range(len(seen), len(seen) + size)
        assert in_order(memory) == seen[-7:]
        assert len(memory) == min(7, len(seen))
    assert memory.n_calls == len(sizes)


def test_size_zero_stores_nothing() -> None:
    memory = FeatureMemory(0)
    memory.enqueue(*batch(0, 4))
    assert len(memory) == 0 and memory.n_calls == 1


@pytest.mark.parametrize("saved_after", [[], [3], [7], [3, 3, 3], [30]])
@pytest.mark.parametrize("size", [0, 1, 5, 7, 12])
def test_a_saved_memory_loads_into_any_size(saved_after: list[int], size: int) -> None:
    saved, seen = FeatureMemory(7), 0
    for n in saved_after:
        saved.enqueue(*batch(seen, n))
        seen += n
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded = FeatureMemory(size)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.n_calls == len(saved_after)
    expected = list(range(seen))[-7:]
    for n in (2, 2, 4):
        assert in_order(loaded) == (expected[-size:] if size else [])
        loaded.enqueue(*batch(seen, n))
        expected += range(seen, seen + n)
        seen += n


def test_loading_the_same_size_keeps_the_very_layout() -> None:
    saved, loaded = FeatureMemory(5), FeatureMemory(5)
    for start in range(0, 9, 3):
        saved.enqueue(*batch(start, 3))
    loaded.load_state_dict(saved.state_dict())
    for memory in (saved, loaded):
        memory.enqueue(*batch(9, 3))
    one, other = (memory.entries(torch.zeros(1, 3)) for memory in (saved, loaded))
    assert (one[0] == other[0]).all() and (one[1] == other[1]).all()


def test_a_saved_state_is_a_copy_without_the_unused_rows() -> None:
    memory = FeatureMemory(10_000)
    memory.enqueue(*batch(0, 2))
    state = memory.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    assert file.tell() < 10_000
    memory.enqueue(*batch(2, 2))
    assert len(state["features"]) == 2


def test_a_state_without_memory_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r'Missing key.*"memory.features"'):
        torch.nn.ModuleDict({"memory": FeatureMemory(3)}).load_state_dict({})
    result = FeatureMemory(3).load_state_dict({}, strict=False)
    assert sorted(result.missing_keys) == ["features", "labels", "n_calls", "position"]


def test_it_is_no_buffer_and_no_parameter() -> None:
    memory = FeatureMemory(4)
    memory.enqueue(*batch(0, 4))
    assert list(memory.buffers()) == list(memory.parameters()) == []


def test_another_dimension_is_refused() -> None:
    memory = FeatureMemory(4)
    memory.enqueue(*batch(0, 2))
    with pytest.raises(
        ValueError, match=r"dimension of the batch is 5, expected 3 as in the memory \(its reset\(\) forgets"
    ):
        memory.enqueue(*batch(2, 2, dim=5))
    memory.reset()
    memory.enqueue(*batch(2, 2, dim=5))
    assert len(memory) == 2


def test_labels_that_do_not_belong_to_the_embeddings_are_refused() -> None:
    memory = FeatureMemory(4)
    with pytest.raises(ValueError, match=r"labels is of shape \(1,\), expected \(3,\): one label for each row of feat"):
        memory.enqueue(torch.zeros(3, 3), torch.tensor([7]))
    assert len(memory) == memory.n_calls == 0


def test_it_follows_the_dtype_of_the_batch() -> None:
    memory = FeatureMemory(4)
    memory.enqueue(*batch(0, 2))
    assert memory.entries(torch.zeros(1, 3, dtype=torch.float64))[0].dtype == torch.float64


def test_rows_that_are_not_finite_become_zero_vectors() -> None:
    memory = FeatureMemory(4)
    features, labels = batch(1, 2)
    features[0, 0] = torch.nan
    memory.enqueue(features, labels)
    assert memory.entries(features)[0].tolist() == [[0, 0, 0], [2, 2, 2]]


def test_a_deep_copy_is_independent() -> None:
    memory = FeatureMemory(4)
    memory.enqueue(*batch(0, 2))
    other = copy.deepcopy(memory)
    memory.enqueue(*batch(2, 2))
    assert in_order(other) == [0, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", torch.zeros(2, dtype=torch.int64)),
        ("labels", torch.zeros(3)),
        ("features", torch.full((3, 3), float("nan"))),
        ("features", torch.zeros(3)),
        ("features", torch.zeros(3, 3, dtype=torch.int64)),
        ("position", torch.tensor(-1)),
        ("position", torch.tensor(4)),
        ("position", torch.tensor(0.5)),
        ("position", torch.tensor([0, 1])),
        ("position", 1),
        ("n_calls", torch.tensor(-1)),
    ],
)
def test_a_state_that_no_memory_saves_is_refused(name: str, value: object) -> None:
    memory = FeatureMemory(5)
    memory.enqueue(*batch(0, 3))
    state = {**memory.state_dict(), name: value}
    with pytest.raises(RuntimeError, match=r"The memory .* in the file holds"):
        FeatureMemory(5).load_state_dict(state)


def test_a_memory_that_does_not_fit_is_one_sentence() -> None:
    memory = FeatureMemory(10**14)
    with pytest.raises(ValueError, match=r"memory_size is 100000000000000: .* take .* GB, which cpu does not have"):
        memory.enqueue(*batch(0, 3))


def test_a_size_above_all_numbers_is_told():
    memory = FeatureMemory(10**30)
    with pytest.raises(ValueError, match=r"memory_size is 10+: as many embeddings of width 8 take"):
        memory.enqueue(torch.ones(2, 8), torch.tensor([0, 1]))
