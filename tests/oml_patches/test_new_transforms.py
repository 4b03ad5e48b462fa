"""OML's data sets are left alone where nothing is to be repaired; ``tests/transforms/test_compose.py`` has the rest."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torchvision.transforms as v1
from oml.datasets.images import ImageBaseDataset

from oml_vit_ext.oml_patches.new_transforms import take_new_transforms


def test_twice_is_once() -> None:
    before = ImageBaseDataset.__init__
    take_new_transforms()
    assert ImageBaseDataset.__init__ is before


def test_the_signature_stays() -> None:
    assert "f_imread" in inspect.signature(ImageBaseDataset.__init__).parameters


def test_what_oml_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Transforms must one of"):
        ImageBaseDataset([tmp_path / "a.png"], transform=v1.ToTensor())
    with pytest.raises(TypeError, match="transfrom"):
        ImageBaseDataset([tmp_path / "a.png"], transfrom=v1.ToTensor())
