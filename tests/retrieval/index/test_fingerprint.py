"""Models are recognised by weights and by what they make of one picture."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
import torchvision.transforms as t
from torch import nn

from helpers.mean_colour import MeanColour
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint

TRANSFORM = t.Compose([t.Resize((16, 16)), t.ToTensor()])


class Grey(nn.Module):
    def __call__(self, image):
        return image.convert("L").convert("RGB")


def _of(model: nn.Module | None = None, transform=TRANSFORM) -> Fingerprint:
    return Fingerprint.of(model or MeanColour(), transform)


def test_it_comes_back_from_a_file_of_json():
    fingerprint = _of()
    assert Fingerprint.from_dict(json.loads(json.dumps(fingerprint.to_dict()))) == fingerprint
    assert fingerprint.model == "MeanColour" and fingerprint.width == 3 and "Resize" in fingerprint.transforms


def test_a_copy_is_the_same_model_whatever_its_mode():
    class WithDropout(MeanColour):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dropout(super().forward(x))

    model = WithDropout().train()
    assert _of(model) == _of(copy.deepcopy(model).eval())
    assert model.training and model.dropout.training, "its modes come back"


class Nothing:
    """Its ``repr`` holds an address."""

    def __call__(self, image):
        return image


def test_addresses_in_transforms_do_not_matter():
    one, two = (_of(transform=t.Compose([Nothing(), *TRANSFORM.transforms])) for _ in range(2))
    assert "0x" in repr(Nothing()) and one == two and "Nothing object" in one.transforms


def test_every_difference_is_told_by_its_kind():
    known = _of()
    known.check_same(known, "the index", "the query")
    grey = _of(transform=t.Compose([Grey(), *TRANSFORM.transforms]))
    other_weights = _of(MeanColour(2.0))
    for other, message in [
        (replace(known, probe=(1.0, 2.0)), "the index has embeddings of 3 dimensions, the query of 2"),
        (
            other_weights,
            rf"weights of the index \(MeanColour\) have the hash {known.weights[:12]}, those of the query "
            rf"\(MeanColour\) {other_weights.weights[:12]}",
        ),
        (grey, r"the weights agree, but the transforms are .* for the index and .*Grey.* for the query"),
        (replace(known, probe=grey.probe), r"one picture gets two embeddings \(another pooling or normalisation\?\)"),
    ]:
        with pytest.raises(ValueError, match=f"^The index and the query come from different models: .*{message}"):
            known.check_same(other, "the index", "the query")


@pytest.mark.parametrize(("change", "same"), [(1.0, True), (1.015, True), (1.03, False), (float("nan"), False)])
def test_what_another_device_changes_is_no_difference(change: float, same: bool):
    known = _of()
    other = replace(known, probe=tuple(change * value for value in known.probe), transforms="worded differently")
    if same:
        known.check_same(other, "the index", "the query")
    else:
        with pytest.raises(ValueError, match="different models"):
            known.check_same(other, "the index", "the query")


@pytest.mark.parametrize(
    ("makes", "said"),
    [
        (lambda x: (x,), r"gives a tuple for one image, expected real numbers \(1, dim\)"),
        (lambda x: x[0], r"gives torch\.float32 \(3,\) for one image"),
        (lambda x: x[:, :, None], r"gives torch\.float32 \(1, 3, 1\) for one image"),
        (lambda x: x.to(torch.complex64), r"gives torch\.complex64 \(1, 3\) for one image"),
        (lambda x: x * torch.nan, r"gives NaN or infinity for a test picture, .*did its training diverge"),
    ],
)
def test_models_that_give_no_embeddings_are_told(makes, said: str):
    class Odd(MeanColour):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return makes(super().forward(x))

    with pytest.raises(ValueError, match=f"The extractor Odd {said}"):
        _of(Odd())
