"""Extractors around extractors: what is inside, at other scales, and that the given one stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oml.interfaces.models import IExtractor
from torch import nn

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import ExtractorWithMomentum, ExtractorWithPCA, IRTExtractor, fit_pca, save_pca
from oml_vit_ext.extractors.multi_scale import AtScales, at_scales
from oml_vit_ext.extractors.wrapped import unwrapped


@pytest.fixture()
def pca(tmp_path: Path) -> Path:
    save_pca(fit_pca(torch.randn(30, 192), 4), tmp_path / "pca.safetensors")
    return tmp_path / "pca.safetensors"


def test_unwrapping_finds_the_one_that_predicts(pca: Path):
    irt = IRTExtractor(None, **TINY_PLAIN)
    assert unwrapped(irt) is irt
    assert unwrapped(AtScales(ExtractorWithPCA(ExtractorWithMomentum(irt), pca, 4), [1])) is irt
    by_average = ExtractorWithMomentum(irt, predict_with="momentum")
    assert unwrapped(ExtractorWithPCA(by_average, pca, 4)) is by_average.momentum_extractor


def test_at_scales_leaves_its_argument_as_it_was(pca: Path):
    irt = IRTExtractor(None, **TINY_PLAIN)
    compact = ExtractorWithPCA(irt, pca, 4).eval()
    images = torch.rand(2, 3, 32, 48)
    before, names = compact(images), list(compact.state_dict())
    scaled = at_scales(compact, [0.5, 1]).eval()
    assert compact.extractor is irt and list(compact.state_dict()) == names
    torch.testing.assert_close(compact(images), before, atol=0, rtol=0)
    torch.testing.assert_close(scaled(images), compact.compress(AtScales(irt, [0.5, 1]).eval()(images)))
    assert (scaled(images) - before).abs().max() > 1e-4
    assert {p.data_ptr() for p in scaled.parameters()} == {p.data_ptr() for p in compact.parameters()}


def test_what_cannot_be_frozen_is_told():
    class Flat(IExtractor):
        feat_dim = 12

        def forward(self, x):
            return x.flatten(1)

    with pytest.raises(TypeError, match="Flat cannot be frozen, expected an extractor that is IFreezable too"):
        AtScales(Flat(), [1]).unfreeze()


def _wrappers(pca: Path) -> dict[str, nn.Module]:
    lively = {**TINY_PLAIN, "timm_args": {**TINY_PLAIN["timm_args"], "proj_drop_rate": 0.5, "drop_path_rate": 0.5}}
    build = lambda: IRTExtractor(None, **lively)  # noqa: E731
    return {
        "irt": build(),
        "pca": ExtractorWithPCA(build(), pca, 4),
        "momentum": ExtractorWithMomentum(build()),
        "multi-scale": AtScales(build(), [0.5, 1]),
    }


@pytest.mark.parametrize("name", ["irt", "pca", "momentum", "multi-scale"])
def test_frozen_means_no_gradients_and_no_noise_until_it_is_undone(name: str, pca: Path):
    model, images = _wrappers(pca)[name], torch.rand(4, 3, 32, 32)
    evaluated = model.eval()(images)
    model.freeze()
    model.train()  # as Lightning does before each epoch
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(images), evaluated)
    model.unfreeze()
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("momentum_extractor."))
    assert (model(images) - model(images)).abs().max() > 1e-3, "drop path and dropout are on again"
    torch.testing.assert_close(model.eval()(images), evaluated)
