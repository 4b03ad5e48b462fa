"""The former place of the reader of image sizes."""

from __future__ import annotations

import importlib
import sys

import pytest

from oml_vit_ext.images import sizes


def test_the_old_name_is_the_new_one_and_says_so():
    sys.modules.pop("oml_vit_ext.samplers.image_sizes", None)
    with pytest.warns(FutureWarning, match=r"is now oml_vit_ext\.images\.sizes"):
        old = importlib.import_module("oml_vit_ext.samplers.image_sizes")
    assert old.read_image_sizes is sizes.read_image_sizes and old.ImageSizes is sizes.ImageSizes
