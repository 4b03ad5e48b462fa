"""Images by their ids: in the order that was asked for, each when it is needed, the broken ones named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from oml_vit_ext.images.loading import image_name, load_images


class Pictures:
    """Picture i is full of i; some cannot be read, some are larger."""

    input_tensors_key = "pixels"

    def __init__(self, broken: tuple[int, ...] = (), large: tuple[int, ...] = ()) -> None:
        self.broken, self.large, self.asked = broken, large, []

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.asked.append(i)
        if i in self.broken:
            raise OSError("it is cut short")
        return {"pixels": torch.full((3, 5 if i in self.large else 4, 4), float(i)), "labels": -i}


class PicturesWithPaths(Pictures):
    df = pd.DataFrame({"path": [f"{i}.jpg" for i in range(20)]})


def _plain(ids: list[int]) -> Tensor:
    return torch.stack([torch.full((3, 4, 4), float(i)) for i in ids])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_the_order_that_was_asked_for(num_workers: int):
    batches = [[7, 3], [11], [3, 0, 9], [1]]
    found = list(load_images(Pictures(), batches, num_workers))
    assert [ids for ids, _ in found] == batches
    assert all(torch.equal(images, _plain(ids)) for ids, images in found)


def test_an_image_is_read_when_its_batch_is_asked_for():
    pictures = Pictures()
    loading = load_images(pictures, [[0, 1], [2]], num_workers=0)
    assert pictures.asked == []
    next(loading)
    assert pictures.asked == [0, 1]
    next(loading)
    assert pictures.asked == [0, 1, 2] and next(loading, None) is None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named_after_those_before_it(num_workers: int):
    loading = load_images(PicturesWithPaths(broken=(5,)), [[0, 1], [4, 5, 6]], num_workers)
    assert next(loading)[0] == [0, 1]
    with pytest.raises(RuntimeError, match=r"^image '5\.jpg' cannot be read or .* \(OSError: it is cut short\)"):
        next(loading)


@pytest.mark.parametrize("batches", [[[2, 8, 3]], [[2], [3, 8]], [[2], [3], [8]]])
def test_two_images_of_different_sizes_are_named(batches: list[list[int]]):
    with pytest.raises(
        ValueError, match=r"image '8\.jpg' comes out .* as \(3, 5, 4\) and image '2\.jpg' as \(3, 4, 4\)"
    ):
        list(load_images(PicturesWithPaths(large=(8,)), batches, 0))


def test_the_name_is_the_path_where_there_is_one():
    inner = SimpleNamespace(_paths=["a.jpg", "b.jpg"])
    assert image_name(inner, 1) == image_name(SimpleNamespace(_dataset=inner), 1) == "image 'b.jpg'"
    assert image_name(PicturesWithPaths(), 3) == "image '3.jpg'"
    assert image_name(Pictures(), 3) == "item 3 of Pictures"
