"""Compact descriptors: an extractor followed by principal component analysis, with or without whitening.

PCA and length 1 afterwards give the 128-dimensional descriptors of IRT (El-Nouby et al., arXiv 2102.05644).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from oml.interfaces.models import IExtractor, IFreezable
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.files import replaced

# A direction with less than this share of the largest variance holds rounding errors of float32, which whitening would
# blow up to the size of the others.
_NEGLIGIBLE = 1e-10


class PCAWeights(NamedTuple):
    """Principal components of descriptors of width D, by decreasing variance."""

    mean: Tensor  # (D,)
    components: Tensor  # (K, D), orthonormal rows
    variance: Tensor  # (K,)
    variance_ratio: Tensor  # (K,), shares of the whole variance


def fit_pca(embeddings: Tensor | NDArray[np.float64], n_components: int) -> PCAWeights:
    """The first ``n_components`` principal components of ``(N, D)`` descriptors, by scikit-learn in float64.

    Raises:
        ValueError: The descriptors are no finite matrix, or ``n_components`` is above N or D.
    """
    from sklearn.decomposition import PCA  # takes a second to import, and is needed for fitting alone

    matrix = np.asarray(embeddings, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"Descriptors of shape {matrix.shape} were given, expected (N, D).")
    if not np.isfinite(matrix).all():
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        raise ValueError(f"{len(bad)} of {len(matrix)} descriptors hold NaN or infinity, the first in row {bad[0]}.")
    check_whole(
        "n_components", n_components, 1, min(matrix.shape), f"{len(matrix)} descriptors of width {matrix.shape[1]}"
    )
    with np.errstate(invalid="ignore"):  # of descriptors that are all the same, the shares are 0 / 0
        pca = PCA(n_components, svd_solver="full").fit(matrix)
    ratio = np.nan_to_num(pca.explained_variance_ratio_)
    fitted = (pca.mean_, pca.components_, pca.explained_variance_, ratio)
    return PCAWeights(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in fitted))


def save_pca(weights: PCAWeights, path: str | Path) -> None:
    """Write a ``.safetensors`` file for :class:`ExtractorWithPCA`."""
    with replaced(path) as unfinished:
        save_file(weights._asdict(), unfinished)


def load_pca(path: str | Path) -> PCAWeights:
    """Read what :func:`save_pca` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken or holds something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"PCA weights {str(path)!r}: there is no such file (looked for {path.absolute()}).")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise RuntimeError(f"PCA weights {str(path)!r} is not a whole safetensors file ({error}).") from error
    if set(state) != set(PCAWeights._fields):
        raise RuntimeError(
            f"PCA weights {str(path)!r} hold {', '.join(sorted(state)[:8])}, expected {', '.join(PCAWeights._fields)}: "
            f"fit them with examples/fit_pca.py. Weights of the extractor belong to the inner one "
            f"(in YAML: extractor.args.extractor.args.weights)."
        )
    return PCAWeights(**state)


class ExtractorWithPCA(IExtractor, IFreezable):
    """An extractor whose descriptors are centred, projected to their principal components and scaled to length 1.

    Maps ``(B, 3, H, W)`` to ``(B, n_components)``, in float32 under autocast too. The projection is a buffer: it is in
    checkpoints and on the model's device, and no optimiser touches it.

    Args:
        extractor: Any extractor; the PCA must have been fitted on its descriptors.
        weights: File of :func:`save_pca` with at least ``n_components`` components, or ``None`` where a checkpoint of
            this class is loaded afterwards.
        n_components: Width of the descriptors.
        whiten: Divide each component by its standard deviation.
        normalise_features: Scale descriptors to length 1.

    Raises:
        ValueError: ``n_components`` is out of range, or the PCA is of another width, or whitening would divide by zero.
        FileNotFoundError, RuntimeError: The file is missing or is not a PCA.
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
        super().__init__()
        width = extractor.feat_dim
        check_whole("n_components", n_components, 1, width, f"{type(extractor).__name__} of width {width}")
        self.extractor = extractor
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
        return self.compress(self.extractor(x))

    def extract(self, x: Tensor) -> Tensor:
        return self.compress(self.extractor.extract(x))

    def compress(self, descriptors: Tensor) -> Tensor:
        """Descriptors of the inner extractor ``(B, D)`` -> ``(B, n_components)``."""
        if not self._is_fitted:
            raise RuntimeError(
                "extractor_with_pca has no projection yet: give `weights`, a file of examples/fit_pca.py, or load a "
                "checkpoint of an extractor_with_pca."
            )
        with torch.autocast(device_type=descriptors.device.type, enabled=False):
            compact = (descriptors.to(self.mean.dtype) - self.mean) @ self.components.T
        if self.whiten:
            compact = compact / self.variance.sqrt()
        return F.normalize(compact, dim=-1) if self.normalise_features else compact

    @property
    def feat_dim(self) -> int:
        return self.n_components

    def freeze(self) -> None:
        _freezable(self.extractor).freeze()

    def unfreeze(self) -> None:
        _freezable(self.extractor).unfreeze()

    def extra_repr(self) -> str:
        return f"n_components={self.n_components}, whiten={self.whiten}"

    def _set(self, pca: PCAWeights, source: str) -> None:
        fitted, width = pca.components.shape
        if width != len(self.mean):
            raise ValueError(
                f"PCA weights {source!r} are of descriptors of width {width}, but {type(self.extractor).__name__} has "
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
    module._is_fitted = True  # type: ignore[assignment]


def _check_whitening(variance: Tensor, source: str) -> None:
    usable = int((variance > _NEGLIGIBLE * variance[0]).sum()) if variance[0] > 0 else 0
    if usable < len(variance):
        raise ValueError(
            f"PCA weights {source!r}: only {usable} of {len(variance)} components have any variance, so whitening "
            f"would divide by zero: expected n_components of at most {usable}, or whiten=False."
        )


def _freezable(extractor: IExtractor) -> IFreezable:
    if not isinstance(extractor, IFreezable):
        raise TypeError(f"{type(extractor).__name__} cannot be frozen: expected an extractor that is IFreezable too.")
    return extractor
