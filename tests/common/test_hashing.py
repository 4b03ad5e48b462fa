"""Equal weights have an equal hash, and nothing else has."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from oml_vit_ext.common.hashing import hash_state


def _state() -> dict[str, Tensor]:
    return {"b.weight": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "half": torch.ones(2).bfloat16()}


def test_the_hash_is_blake2b_of_names_types_shapes_and_bytes():
    plain = hashlib.blake2b(digest_size=16)
    plain.update(b"a|torch.int64|()|" + (3).to_bytes(8, "little"))
    plain.update(b"b.weight|torch.float32|(2, 3)|" + torch.arange(6.0).numpy().tobytes())
    plain.update(b"half|torch.bfloat16|(2,)|" + bytes.fromhex("803f803f"))
    assert hash_state(_state()) == plain.hexdigest()


def test_neither_order_nor_layout_nor_gradients_matter():
    state = _state()
    state["b.weight"] = state["b.weight"].t().contiguous().t().requires_grad_()
    assert not state["b.weight"].is_contiguous()
    assert hash_state(dict(reversed(state.items()))) == hash_state(_state())


@pytest.mark.parametrize(
    "change",
    [
        {"b.weight": torch.arange(6.0).reshape(3, 2)},
        {"b.weight": torch.arange(6).int().reshape(2, 3)},
        {"b.weight": torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))},
        {"more": torch.zeros(0)},
    ],
    ids=["shape", "type", "the last bit", "an empty tensor more"],
)
def test_any_change_is_seen(change: dict[str, Tensor]):
    assert hash_state(_state() | change) != hash_state(_state())


def test_a_name_counts():
    assert hash_state({"a": torch.ones(1)}) != hash_state({"b": torch.ones(1)})
