"""Compact embeddings: an extractor followed by principal component analysis, with or without whitening.

PCA and length 1 afterwards give the 128-dimensional embeddings of IRT (El-Nouby et al., arXiv 2102.05644).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from oml.interfaces.models import IExtractor
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.momentum_embeddings import mapped
from oml_vit_ext.extractors.checkpoints import existing_file, read_safetensors, write_safetensors
from oml_vit_ext.extractors.wrapped import WrappedExtractor

# A direction with less than this share of the largest variance holds rounding errors of float32, which whitening would
# blow up to the size of the others.
_NEGLIGIBLE = 1e-10
_ORTHONORMAL = 0.05  # as far as half precision leaves it


class PCAWeights(NamedTuple):
    """Principal components of embeddings of width D, by decreasing variance."""

    mean: Tensor  # (D,)
    components: Tensor  # (K, D), orthonormal rows
    variance: Tensor  # (K,)
    variance_ratio: Tensor  # (K,), shares of the whole variance


def fit_pca(embeddings: Tensor | NDArray[np.float64], n_components: int) -> PCAWeights:
    """The first principal components of embeddings, by scikit-learn in float64.

    Args:
        embeddings: ``(N, D)`` of any floating type; of a tensor also with gradients, or on another device.
        n_components: K, from 1 to the smaller one of N and D.

    Returns:
        Mean and components in float32, for :func:`save_pca`.

    Raises:
        ValueError: The embeddings are no finite matrix of at least two rows, their variance is above what float32 can
            hold, or ``n_components`` is above N or D.

    >>> pca = fit_pca(torch.randn(20, 6), n_components=2)
    >>> pca.mean.shape, pca.components.shape
    (torch.Size([6]), torch.Size([2, 6]))
    """
    from sklearn.decomposition import PCA  # takes a second to import, and is needed for fitting alone

    if embeddings.is_complex() if isinstance(embeddings, Tensor) else np.iscomplexobj(embeddings):
        raise ValueError("Embeddings of complex numbers were given, expected real ones.")
    if isinstance(embeddings, Tensor) and (embeddings.is_meta or embeddings.layout != torch.strided):
        raise ValueError(
            f"Embeddings of device {embeddings.device} and {embeddings.layout} were given, expected numbers."
        )
    if isinstance(embeddings, Tensor):
        embeddings = embeddings.detach().cpu().double().numpy()
    matrix = np.asarray(embeddings, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < 2:
        raise ValueError(f"Embeddings of shape {matrix.shape} were given, expected (N, D) with N of at least 2.")
    if not np.isfinite(matrix).all():
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        raise ValueError(f"NaN or infinity is in {len(bad)} of {len(matrix)} embeddings, the first in row {bad[0]}.")
    check_whole(
        "n_components", n_components, 1, min(matrix.shape), f"{len(matrix)} embeddings of width {matrix.shape[1]}"
    )
    with np.errstate(invalid="ignore"):  # of embeddings that are all the same, the shares are 0 / 0
        pca = PCA(n_components, svd_solver="full").fit(matrix)
    ratio = np.nan_to_num(pca.explained_variance_ratio_)
    fitted = (pca.mean_, pca.components_, pca.explained_variance_, ratio)
    largest = max(float(np.abs(part).max()) for part in fitted)
    if not largest < np.finfo(np.float32).max:
        raise ValueError(
            f"The embeddings have lengths up to {np.abs(matrix).max():g}, expected a mean and a variance that float32 "
            f"can hold."
        )
    return PCAWeights(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in fitted))


def save_pca(weights: PCAWeights, path: str | Path) -> None:
    """Write a ``.safetensors`` file for :class:`ExtractorWithPCA`.

    Args:
        weights: Of :func:`fit_pca`.
        path: The file; one of this name is replaced when the new one is whole.

    Raises:
        OSError: The file cannot be written.
    """
    write_safetensors(weights._asdict(), path)


def load_pca(path: str | Path) -> PCAWeights:
    """Read what :func:`save_pca` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken or holds something else.
    """
    path = existing_file(path, "PCA weights")
    state = read_safetensors(path, "PCA weights")
    if set(state) != set(PCAWeights._fields):
        raise RuntimeError(
            f"PCA weights {str(path)!r} hold {', '.join(sorted(state)[:8])}, expected {', '.join(PCAWeights._fields)}: "
            f"fit them with oml_vit_ext.extractors.fit_pca. Weights of the extractor belong to the inner one "
            f"(in YAML: extractor.args.extractor.args.weights)."
        )
    weights = PCAWeights(**state)
    _check_weights(weights, path)
    return weights


def _check_weights(weights: PCAWeights, path: Path) -> None:
    n, width = weights.components.shape if weights.components.ndim == 2 else (0, 0)
    shapes = {"mean": (width,), "components": (n, width), "variance": (n,), "variance_ratio": (n,)}
    for name, tensor in weights._asdict().items():
        if tensor.shape != shapes[name] or not tensor.is_floating_point() or not tensor.numel():
            raise RuntimeError(
                f"PCA weights {str(path)!r} hold {name} of {tensor.dtype} {tuple(tensor.shape)}, expected "
                f"floating-point numbers of shape {shapes[name]}."
            )
        if not torch.isfinite(tensor).all() or (name.startswith("variance") and bool((tensor < 0).any())):
            raise RuntimeError(f"PCA weights {str(path)!r} hold {name} with wrong values, expected finite ones.")

    rows = weights.components.double()
    if not torch.allclose(rows @ rows.T, torch.eye(n, dtype=torch.float64), atol=_ORTHONORMAL):
        raise RuntimeError(f"PCA weights {str(path)!r} hold components that are not orthonormal, expected such rows.")


class ExtractorWithPCA(WrappedExtractor):
    """An extractor whose embeddings are centred, projected to their principal components and scaled to length 1.

    Maps ``(B, 3, H, W)`` to ``(B, n_components)``, in float32 under autocast too. The projection is a buffer: it is in
    checkpoints and on the model's device, and no optimiser touches it. Momentum
    embeddings of an ``ExtractorWithMomentum`` inside are projected as well.

    Args:
        extractor: Any extractor; the PCA must have been fitted on its embeddings.
        weights: File of :func:`save_pca` with at least ``n_components`` components, or ``None`` where a checkpoint of
            this class is loaded afterwards.
        n_components: Width of the embeddings.
        whiten: Divide each component by its standard deviation.
        normalise_features: Scale embeddings to length 1.

    Raises:
        ValueError: ``n_components`` is out of range, or the PCA is of another width, or whitening would divide by zero.
        FileNotFoundError, RuntimeError: The file is missing or is not a PCA.

    >>> import tempfile
    >>> from oml_vit_ext.extractors import IRTExtractor, fit_pca, save_pca
    >>> irt = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 1, "img_size": 32}).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pca(fit_pca(torch.randn(50, irt.feat_dim), n_components=16), f"{folder}/pca.safetensors")
    ...     compact = ExtractorWithPCA(irt, f"{folder}/pca.safetensors", n_components=8)
    >>> compact(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """

    mean: Tensor
    components: Tensor
    variance: Tensor

    def __init__(
        self,
        extractor: IExtractor,
        weights: str | Path | None,
        n_components: int,
        whiten: bool = False,
        normalise_features: bool = True,
    ) -> None:
        super().__init__(extractor)
        width = extractor.feat_dim
        check_whole("n_components", n_components, 1, width, f"{type(extractor).__name__} of width {width}")
        self.n_components = n_components
        self.whiten = whiten
        self.normalise_features = normalise_features
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(n_components, width))
        self.register_buffer("variance", torch.ones(n_components))
        self._is_fitted = False
        self.register_load_state_dict_post_hook(_mark_as_fitted)
        if weights is not None:
            self._set(load_pca(weights), str(weights))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, n_components)``."""
        return mapped(self.compress, self.extractor(x))

    def extract(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, n_components)``."""
        return self.compress(self.extractor.extract(x))

    def compress(self, embeddings: Tensor) -> Tensor:
        """Embeddings of the inner extractor ``(B, D)`` -> ``(B, n_components)``.

        Raises:
            RuntimeError: There is no projection yet.
        """
        if not self._is_fitted:
            raise RuntimeError(
                "extractor_with_pca has no projection yet: give `weights`, a file of oml_vit_ext.extractors.save_pca, "
                "or load a checkpoint of an extractor_with_pca."
            )
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            compact = (embeddings.to(self.mean.dtype) - self.mean) @ self.components.T
        if self.whiten:
            compact = compact / self.variance.sqrt()
        return F.normalize(compact, dim=-1) if self.normalise_features else compact

    @property
    def feat_dim(self) -> int:
        """Width of the embeddings."""
        return self.n_components

    def extra_repr(self) -> str:
        return f"n_components={self.n_components}, whiten={self.whiten}"

    def _set(self, pca: PCAWeights, source: str) -> None:
        fitted, width = pca.components.shape
        if width != len(self.mean):
            raise ValueError(
                f"PCA weights {source!r} are of embeddings of width {width}, but {type(self.extractor).__name__} has "
                f"width {len(self.mean)}: fit them on this extractor."
            )
        check_whole("n_components", self.n_components, 1, fitted, f"PCA weights {source!r} with {fitted} components")
        if self.whiten:
            _check_whitening(pca.variance[: self.n_components], source)
        self.mean.copy_(pca.mean)
        self.components.copy_(pca.components[: self.n_components])
        self.variance.copy_(pca.variance[: self.n_components])
        self._is_fitted = True


def _mark_as_fitted(module: nn.Module, incompatible_keys: object) -> None:
    """A state without the projection, loaded with ``strict=False``, leaves it as it is: all zeros if there was none."""
    module._is_fitted = bool(module.components.any())  # type: ignore[operator, assignment]


def _check_whitening(variance: Tensor, source: str) -> None:
    usable = int((variance > _NEGLIGIBLE * variance[0]).sum()) if variance[0] > 0 else 0
    if usable < len(variance):
        raise ValueError(
            f"PCA weights {source!r}: only {usable} of {counted(len(variance), 'component')} "
            f"{'has' if usable == 1 else 'have'} any variance, so whitening would divide by zero: expected "
            f"n_components of at most {usable}, or whiten=False."
        )
