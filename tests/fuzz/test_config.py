"""What people write into YAML by mistake, through OML's own way from config to objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.samplers import get_sampler
from oml.registry.transforms import get_transforms_by_cfg
from PIL import Image

import oml_vit_ext  # noqa: F401  (registers the names)
from helpers import TINY_PLAIN
from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from helpers.photos import small_model
from oml_vit_ext.reranking import STIRReranker

NAMES = st.one_of(st.text(max_size=8), st.sampled_from(["margn", "Margin", "memory", "epsilon", "lr", "miner", "size"]))


def result_or_words(call: Callable[[], Any], *allowed: type[Exception]) -> Any:
    """As ``result_or_refusal``; what Python itself says of an argument that is unknown or missing is clear enough."""

    def told() -> Any:
        try:
            return call()
        except TypeError as error:
            if "unexpected keyword argument" in str(error) or "required" in str(error):
                return Refusal(error)
            raise

    return result_or_refusal(told, *allowed)


@pytest.mark.parametrize("name", ["contrastive_xbm", "differential_entropy", "irt"])
@fuzz(short=15, long=500)
@given(argument=NAMES, value=ODD_VALUES)
def test_no_argument_of_a_criterion_is_lost(name: str, argument: str, value: Any):
    made = result_or_refusal(lambda: get_criterion_by_cfg({"name": name, "args": {argument: value}}))
    if not isinstance(made, Refusal):
        assert hasattr(made, argument) or argument in ("label2category", "labels", "memory_size")


@pytest.mark.parametrize("name", ["hard_tuples", "group_size", "nearest_pairs"])
@fuzz(short=15, long=500)
@given(argument=NAMES, value=ODD_VALUES)
def test_no_argument_of_a_sampler_is_lost(name: str, argument: str, value: Any):
    made = result_or_words(lambda: get_sampler(name, labels=[0, 0, 1, 1], **{argument: value}), FileNotFoundError)
    assert isinstance(made, Refusal), "the arguments that it needs are not given"


TRANSFORMS = {
    "augs_irt": ["im_size", "crop_size", "mean", "std"],
    "norm_resize_irt": ["im_size", "crop_size", "mean", "std"],
    "augs_dtop": ["sizes", "crop_scale", "mean", "std"],
    "norm_resize_dtop": ["im_size", "boxes", "mean", "std"],
}
SMALL = {"im_size": 16, "crop_size": 8, "sizes": [[8, 8]]}


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@fuzz(short=20, long=600)
@given(data=st.data())
def test_transforms(name: str, data: Any):
    odd = data.draw(st.dictionaries(st.sampled_from(TRANSFORMS[name][:2]), ODD_VALUES, min_size=1, max_size=2))
    args = {key: value for key, value in SMALL.items() if key in TRANSFORMS[name]} | odd
    made = result_or_refusal(lambda: get_transforms_by_cfg({"name": name, "args": args}))
    sides = [args[key] for key in ("im_size", "crop_size") if key in args]
    if not isinstance(made, Refusal) and all(side < 1_000 for side in sides):
        tensor = made(Image.new("RGB", (9, 7), "red"))
        assert tensor.ndim == 3 and torch.isfinite(tensor).all()


@fuzz(short=15, long=400)
@given(
    st.dictionaries(
        st.sampled_from(["arch", "pooling", "gem_p", "weights", "normalise_features"]), ODD_VALUES, max_size=2
    )
)
def test_extractors(odd: dict[str, Any]):
    args = {"weights": None, **TINY_PLAIN, **odd}
    made = result_or_words(lambda: get_extractor_by_cfg({"name": "irt", "args": args}), FileNotFoundError, RuntimeError)
    assert isinstance(made, Refusal) or made.feat_dim > 0


MODEL = small_model()


@fuzz(short=30, long=1_000)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "top_n",
                "num_workers",
                "batch_size",
                "memory_mb",
                "budget",
                "margin",
                "scores_file",
                "fusion",
                "pairwise_model",
            ]
        ),
        ODD_VALUES,
        min_size=1,
        max_size=3,
    )
)
def test_rerankers(odd: dict[str, Any]):
    args = {"top_n": 3, "pairwise_model": MODEL, "num_workers": 0, "batch_size": 4, **odd}
    made = result_or_refusal(lambda: STIRReranker(**args), FileNotFoundError)
    assert isinstance(made, (Refusal, STIRReranker))
