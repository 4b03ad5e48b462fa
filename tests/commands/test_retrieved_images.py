"""The validation images of a config."""

from __future__ import annotations

import pandas as pd
import torch

from helpers.configs import composed
from oml_vit_ext.commands.retrieved_images import RetrievedImages, right_ones, spread


def test_images_and_what_is_found_for_them(tiny: list[str], frame: pd.DataFrame):
    images = RetrievedImages(composed("irt/train_photos", *tiny))
    n = int((frame.split == "validation").sum())
    assert len(images.dataset) == n and images.picture(0).shape == (32, 32, 3)
    labels = torch.tensor(frame.label[frame.split == "validation"].to_numpy())
    found = images.results_of(torch.nn.functional.one_hot(labels, 8).float(), n_items=4)
    assert all(right_ones(found, query).all() for query in range(n))
    assert images.ids(found, 0, 2)[0] == 0 and len(images.strip(found, 0, 2).images) == 2


def test_items_are_evenly_spaced():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9] and spread([5], 3) == [5]
