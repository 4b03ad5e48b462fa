"""PCA behind an extractor: against plain linear algebra, scikit-learn and faiss; files, checkpoints, bad input."""

from __future__ import annotations

import os
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from oml.interfaces.models import IExtractor
from oml.registry.models import get_extractor_by_cfg
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA
from torch import Tensor, nn

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import ExtractorWithPCA, IRTExtractor, fit_pca, save_pca
from oml_vit_ext.extractors.pca import load_pca

WIDTH = 12


class Flat(IExtractor):
    """Images of WIDTH pixels are their own descriptors."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    @property
    def feat_dim(self) -> int:
        return WIDTH


@pytest.fixture()
def descriptors() -> Tensor:
    """(300, WIDTH), correlated, off the origin."""
    return torch.randn(300, WIDTH) @ torch.randn(WIDTH, WIDTH) + 3 * torch.randn(WIDTH)


@pytest.fixture()
def fitted(descriptors: Tensor, tmp_path: Path) -> Path:
    save_pca(fit_pca(descriptors, WIDTH), tmp_path / "pca.safetensors")
    return tmp_path / "pca.safetensors"


def _same_up_to_sign(ours: Tensor, theirs: Tensor, tolerance: float = 1e-3) -> None:
    signs = torch.sign((ours * theirs).sum(dim=0))
    torch.testing.assert_close(ours, theirs * signs, rtol=tolerance, atol=tolerance)


def _without_normalisation(fitted: Path, n_components: int, whiten: bool) -> ExtractorWithPCA:
    return ExtractorWithPCA(Flat(), fitted, n_components, whiten, normalise_features=False)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [1, 5, WIDTH])
def test_it_projects_on_the_eigenvectors_of_the_covariance(
    descriptors: Tensor, fitted: Path, n_components: int, whiten: bool
):
    centred = descriptors.double() - descriptors.double().mean(dim=0)
    eigenvalues, eigenvectors = torch.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    expected = centred @ eigenvectors.flip(1)[:, :n_components]
    if whiten:
        expected = expected / eigenvalues.flip(0)[:n_components].sqrt()
    found = _without_normalisation(fitted, n_components, whiten)(descriptors)
    assert found.shape == (300, n_components)
    _same_up_to_sign(found, expected.float())


@pytest.mark.parametrize("whiten", [False, True])
def test_it_equals_scikit_learn(descriptors: Tensor, fitted: Path, whiten: bool):
    expected = PCA(4, whiten=whiten).fit_transform(descriptors.numpy())
    _same_up_to_sign(_without_normalisation(fitted, 4, whiten)(descriptors), torch.from_numpy(expected))


def test_it_equals_faiss(descriptors: Tensor, fitted: Path):
    theirs = faiss.PCAMatrix(WIDTH, 4)
    theirs.train(descriptors.numpy())
    expected = torch.from_numpy(theirs.apply(descriptors.numpy()))
    _same_up_to_sign(_without_normalisation(fitted, 4, False)(descriptors), expected, tolerance=5e-3)


def test_whitened_descriptors_have_unit_covariance(descriptors: Tensor, fitted: Path):
    whitened = _without_normalisation(fitted, 6, True)(descriptors)
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(6), atol=1e-4, rtol=0)


def test_descriptors_have_length_one_unless_switched_off(descriptors: Tensor, fitted: Path):
    norms = ExtractorWithPCA(Flat(), fitted, 3)(descriptors).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(300))
    assert _without_normalisation(fitted, 3, False)(descriptors).norm(dim=1).std() > 0.1


def test_the_file_tells_the_share_of_the_variance(descriptors: Tensor, fitted: Path):
    pca = load_pca(fitted)
    assert float(pca.variance_ratio.sum()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(pca.variance.sum(), descriptors.var(dim=0).sum(), rtol=1e-4, atol=0)
    assert (pca.variance.diff() <= 0).all()


def test_one_file_serves_fewer_components(descriptors: Tensor, fitted: Path):
    few, many = (_without_normalisation(fitted, n, False)(descriptors) for n in (3, 9))
    torch.testing.assert_close(few, many[:, :3])


def test_fewer_samples_than_dimensions(descriptors: Tensor):
    assert fit_pca(descriptors[:5], 4).components.shape == (4, WIDTH)
    with pytest.raises(
        ValueError, match=r"n_components is 6, expected a whole number from 1 to 5 \(5 embeddings of width 12\)"
    ):
        fit_pca(descriptors[:5], 6)


def test_half_precision_descriptors_are_fitted_in_full(descriptors: Tensor):
    half = descriptors.half()
    torch.testing.assert_close(fit_pca(half, 3).variance, fit_pca(half.float(), 3).variance)


@pytest.mark.parametrize("n_components", [0, -1, 13, 2.5, True, None])
def test_a_wrong_number_of_components_is_named(descriptors: Tensor, n_components: object):
    with pytest.raises(ValueError, match=f"n_components is {n_components}, expected a whole number from 1 to 12"):
        fit_pca(descriptors, n_components)
    with pytest.raises(
        ValueError, match=rf"n_components is {n_components}, expected a whole number from 1 to 12 \(Flat of width 12\)"
    ):
        ExtractorWithPCA(Flat(), None, n_components)


def test_descriptors_that_are_no_finite_matrix_are_refused(descriptors: Tensor):
    descriptors[7, 3] = float("nan")
    descriptors[9, 1] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinity is in 2 of 300 embeddings, the first in row 7"):
        fit_pca(descriptors, 3)
    with pytest.raises(ValueError, match=r"shape \(12,\) were given, expected \(N, D\)"):
        fit_pca(descriptors[0], 3)


def test_more_components_than_fitted_are_refused(descriptors: Tensor, tmp_path: Path):
    save_pca(fit_pca(descriptors, 4), tmp_path / "few.safetensors")
    with pytest.raises(
        ValueError, match=r"n_components is 5, expected a whole number from 1 to 4 \(PCA weights .*few.safetensors"
    ):
        ExtractorWithPCA(Flat(), tmp_path / "few.safetensors", 5)


def test_a_pca_of_another_width_is_refused(descriptors: Tensor, tmp_path: Path):
    save_pca(fit_pca(descriptors[:, :7], 3), tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match="of embeddings of width 7, but Flat has width 12"):
        ExtractorWithPCA(Flat(), tmp_path / "narrow.safetensors", 3)


@pytest.mark.parametrize("collapsed", [0, 5])
def test_whitening_needs_variance_and_projection_does_not(descriptors: Tensor, tmp_path: Path, collapsed: int):
    flat = descriptors[:, :collapsed] @ torch.randn(collapsed, WIDTH) + 1  # in a subspace, or all the same
    save_pca(fit_pca(flat, 8), tmp_path / "flat.safetensors")
    with pytest.raises(ValueError, match=f"only {collapsed} of 8 components have any variance"):
        ExtractorWithPCA(Flat(), tmp_path / "flat.safetensors", 8, whiten=True)
    assert ExtractorWithPCA(Flat(), tmp_path / "flat.safetensors", 8)(descriptors).isfinite().all()


def test_files_that_are_no_pca_are_named(fitted: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no\.safetensors"):
        ExtractorWithPCA(Flat(), tmp_path / "no.safetensors", 3)
    (tmp_path / "cut.safetensors").write_bytes(fitted.read_bytes()[:-20])
    with pytest.raises(RuntimeError, match=r"cut.safetensors' is not a whole safetensors file"):
        ExtractorWithPCA(Flat(), tmp_path / "cut.safetensors", 3)
    save_file(IRTExtractor(None, **TINY_PLAIN).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(
        RuntimeError,
        match=r"hold backbone.*expected mean, components.*extractors\.fit_pca\. .*belong to the inner one",
    ):
        ExtractorWithPCA(Flat(), tmp_path / "vit.safetensors", 3)


def test_an_interrupted_write_leaves_the_old_file(descriptors: Tensor, fitted: Path, monkeypatch: pytest.MonkeyPatch):
    before = load_file(fitted)["components"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_pca(fit_pca(descriptors + 1, 2), fitted)
    assert torch.equal(load_file(fitted)["components"], before)
    assert [p.name for p in fitted.parent.iterdir()] == ["pca.safetensors"]


def test_without_weights_it_waits_for_a_checkpoint(descriptors: Tensor, fitted: Path, tmp_path: Path):
    whole = ExtractorWithPCA(Flat(), fitted, 5, whiten=True)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    empty = ExtractorWithPCA(Flat(), None, 5, whiten=True)
    with pytest.raises(RuntimeError, match="no projection yet: give `weights`"):
        empty(descriptors)
    empty.load_state_dict(torch.load(tmp_path / "whole.pth", weights_only=True))
    assert torch.equal(empty(descriptors), whole(descriptors))


def test_it_is_rebuilt_inside_another_module_from_a_checkpoint(descriptors: Tensor, fitted: Path):
    outer, empty = (nn.ModuleDict({"model": ExtractorWithPCA(Flat(), w, 5)}) for w in (fitted, None))
    empty.load_state_dict(outer.state_dict())
    assert torch.equal(empty["model"](descriptors), outer["model"](descriptors))


def test_from_yaml_around_a_vision_transformer(tmp_path: Path):
    inner = IRTExtractor(None, **TINY_PLAIN).eval()
    images = torch.rand(40, 3, 32, 32)
    with torch.no_grad():
        save_pca(fit_pca(inner(images), 16), tmp_path / "pca.safetensors")
    save_file(inner.state_dict(), tmp_path / "vit.safetensors")
    extractor = get_extractor_by_cfg(
        {
            "name": "extractor_with_pca",
            "args": {
                "extractor": {"name": "irt", "args": {"weights": str(tmp_path / "vit.safetensors"), **TINY_PLAIN}},
                "weights": str(tmp_path / "pca.safetensors"),
                "n_components": 8,
            },
        }
    ).eval()
    with torch.no_grad():
        found, whole = extractor(images), inner(images)
    assert isinstance(extractor, ExtractorWithPCA) and extractor.feat_dim == 8
    expected = PCA(8).fit(whole.numpy().astype(np.float64)).transform(whole.numpy())
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    _same_up_to_sign(found, torch.from_numpy(expected).float(), tolerance=5e-3)
    assert torch.equal(extractor.extract(images), found)


def test_freezing_is_the_inner_extractors(fitted: Path, tmp_path: Path):
    inner = IRTExtractor(None, **TINY_PLAIN)
    save_pca(fit_pca(torch.randn(40, inner.feat_dim), 4), tmp_path / "p.safetensors")
    extractor = ExtractorWithPCA(inner, tmp_path / "p.safetensors", 4)
    extractor.freeze()
    assert not any(p.requires_grad for p in extractor.parameters())
    extractor.unfreeze()
    assert all(p.requires_grad for p in extractor.parameters())
    extractor(torch.rand(2, 3, 32, 32))[0, 0].backward()
    assert next(inner.backbone.parameters()).grad.abs().sum() > 0, "training goes on through the projection"
    with pytest.raises(TypeError, match="Flat cannot be frozen"):
        ExtractorWithPCA(Flat(), fitted, 3).freeze()


def test_under_autocast_the_projection_is_in_float32(descriptors: Tensor, fitted: Path):
    extractor = _without_normalisation(fitted, 5, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extractor(descriptors)
    assert found.dtype == torch.float32
    assert torch.equal(found, extractor(descriptors))


def test_empty_batches(fitted: Path):
    assert ExtractorWithPCA(Flat(), fitted, 5)(torch.zeros(0, WIDTH)).shape == (0, 5)


def test_it_exports_to_one_graph(descriptors: Tensor, fitted: Path):
    extractor = ExtractorWithPCA(Flat(), fitted, 5, whiten=True)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(extractor, (descriptors[:4],), dynamic_shapes={"x": {0: batch}})
    torch.testing.assert_close(exported.module()(descriptors), extractor(descriptors))


@pytest.mark.parametrize(
    "change",
    [Tensor.bfloat16, Tensor.half, lambda x: x.requires_grad_(), lambda x: (x * 1.0).double().requires_grad_()],
)
def test_tensors_of_any_kind_are_fitted(descriptors: Tensor, change):
    fitted = fit_pca(change(descriptors.clone()), 3)
    torch.testing.assert_close(fitted.variance, fit_pca(descriptors, 3).variance, rtol=0.05, atol=0)


@pytest.mark.parametrize("embeddings", [torch.ones(1, WIDTH), np.full((3, WIDTH), 1e40), np.eye(WIDTH) * 1e30])
def test_what_has_no_pca_in_float32_is_refused(embeddings):
    with pytest.raises(ValueError, match="expected"):
        fit_pca(embeddings, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", torch.zeros(1)),
        ("mean", torch.zeros(WIDTH, dtype=torch.int8)),
        ("mean", torch.full((WIDTH,), float("nan"))),
        ("components", torch.zeros(WIDTH)),
        ("components", torch.zeros(0, WIDTH)),
        ("components", torch.zeros(WIDTH, WIDTH, dtype=torch.complex64)),
        ("variance", torch.ones(1)),
        ("variance", torch.full((WIDTH,), float("inf"))),
        ("variance", -torch.ones(WIDTH)),
        ("variance_ratio", torch.ones(WIDTH + 1)),
    ],
)
def test_files_with_odd_tensors_are_refused(fitted: Path, name: str, value: Tensor):
    save_file({**load_file(fitted), name: value}, fitted)
    with pytest.raises(
        RuntimeError, match=rf"PCA weights '.*pca.safetensors' hold .*{name if name != 'components' else ''}"
    ):
        ExtractorWithPCA(Flat(), fitted, 3)


def test_a_checkpoint_without_a_projection_brings_none(descriptors: Tensor, fitted: Path):
    empty = ExtractorWithPCA(Flat(), None, 4)
    empty.load_state_dict({}, strict=False)
    with pytest.raises(RuntimeError, match="has no projection yet"):
        empty(descriptors)
    full = ExtractorWithPCA(Flat(), fitted, 4)
    full.load_state_dict({}, strict=False)
    full(descriptors)


@pytest.mark.parametrize("as_array", [False, True])
def test_complex_numbers_are_no_embeddings(as_array: bool):
    embeddings = torch.randn(9, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"complex numbers were given, expected real ones"):
        fit_pca(embeddings.numpy() if as_array else embeddings, 2)


@pytest.mark.parametrize("odd", [lambda x: x.to_sparse(), lambda x: x.to("meta")])
def test_tensors_without_a_number_in_each_place_are_no_embeddings(odd):
    with pytest.raises(ValueError, match=r"Embeddings of device \w+ and torch\.\w+ were given, expected numbers"):
        fit_pca(odd(torch.rand(4, 3)), 2)


@pytest.mark.parametrize(
    "change", [lambda rows: rows * 0, lambda rows: rows * 2, lambda rows: rows[:1].repeat(len(rows), 1)]
)
def test_components_that_no_pca_has_are_refused(fitted: Path, change):
    """All embeddings would be zero, or of fewer dimensions than they have."""
    state = load_file(fitted)
    save_file({**state, "components": state["components"].half()}, fitted)
    load_pca(fitted)
    save_file({**state, "components": change(state["components"]).contiguous()}, fitted)
    with pytest.raises(RuntimeError, match="hold components that are not orthonormal"):
        load_pca(fitted)
