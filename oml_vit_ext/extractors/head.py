"""A linear layer or a small MLP behind any extractor, trained on its embeddings alone by ``fit_head``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from safetensors import safe_open
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.hashing import hash_state
from oml_vit_ext.common.momentum_embeddings import mapped
from oml_vit_ext.extractors.checkpoints import StateDict, existing_file, read_safetensors, write_safetensors
from oml_vit_ext.extractors.wrapped import WrappedExtractor

_EXTRACTOR = "extractor"  # in a file's metadata: hash of the weights whose embeddings a head was fitted on


def make_head(width: int, dims: Sequence[int]) -> nn.Sequential:
    """Linear layers with GELU between them: ``(B, width)`` -> ``(B, dims[-1])``.

    Raises:
        ValueError: ``dims`` is empty or holds something else than whole numbers of at least 1.

    >>> make_head(8, [4, 2])(torch.rand(3, 8)).shape
    torch.Size([3, 2])
    """
    if isinstance(dims, (str, int)) or not len(dims):
        raise ValueError(
            f"dims is {dims!r}, expected a list of the layers' widths, e.g. [128], or [512, 128] for an MLP."
        )
    layers: list[nn.Module] = []
    for dim in dims:
        layers += [nn.Linear(width, check_whole("dims", dim, 1)), nn.GELU()]
        width = dim
    return nn.Sequential(*layers[:-1])


def save_head(head: nn.Sequential, path: str | Path, *, extractor_hash: str = "") -> None:
    """Write a ``.safetensors`` file for :class:`ExtractorWithHead`.

    Args:
        head: Of :func:`make_head`.
        path: The file; one of this name is replaced when the new one is whole.
        extractor_hash: ``hash_state`` of the extractor that it was fitted on; then no other one is put before it.

    Raises:
        OSError: The file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    write_safetensors(state, path, {_EXTRACTOR: extractor_hash})


def load_head(path: str | Path) -> tuple[nn.Sequential, str]:
    """What :func:`save_head` wrote: the head, and the hash of the extractor's weights or ``""``.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken or holds something else.
    """
    path = existing_file(path, "head")
    state = read_safetensors(path, "head")
    dims, width = _shape_of(state, path)
    head = make_head(width, dims)
    head.load_state_dict(state)
    with safe_open(path, framework="pt") as file:
        return head, (file.metadata() or {}).get(_EXTRACTOR, "")


def _shape_of(state: StateDict, path: Path) -> tuple[list[int], int]:
    numbers = [2 * i for i in range(len(state) // 2)]
    weights = [state.get(f"{number}.weight") for number in numbers]
    fits = bool(numbers) and set(state) == {f"{n}.{kind}" for n in numbers for kind in ("weight", "bias")}
    fits = fits and all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in state.values())
    if fits and all(w is not None and w.ndim == 2 and w.numel() for w in weights):
        widths = [w.shape[1] for w in weights if w is not None]
        dims = [w.shape[0] for w in weights if w is not None]
        biases = [state[f"{number}.bias"].shape for number in numbers]
        if widths[1:] == dims[:-1] and biases == [(dim,) for dim in dims]:
            return dims, widths[0]
    raise RuntimeError(
        f"head {str(path)!r} holds {', '.join(sorted(state)[:8]) or 'nothing'}, expected weights and biases of linear "
        f"layers in float32: fit it with examples/fit_head.py. Weights of the extractor belong to the inner one (in "
        f"YAML: extractor.args.extractor.args.weights)."
    )


class ExtractorWithHead(WrappedExtractor):
    """An extractor whose embeddings go through a linear layer or a small MLP, and are scaled to length 1.

    Maps ``(B, 3, H, W)`` to ``(B, dims[-1])``, in float32 under autocast too. ``freeze()`` freezes the inner extractor
    alone. Momentum embeddings of an ``ExtractorWithMomentum`` inside go through the head as well.

    Args:
        extractor: Any extractor; the head must have been fitted on its embeddings.
        weights: File of :func:`save_head`, or ``None``: random, to be trained or loaded from a checkpoint.
        dims: Widths of the layers, ``[128]`` for a linear head, ``[512, 128]`` for an MLP; of ``weights`` they are
            known.
        normalise_features: Scale embeddings to length 1.

    Raises:
        ValueError: Without ``weights``, ``dims`` is wrong or missing; with them, they have other ``dims``, or were
            fitted on embeddings of another width, or of other weights.
        FileNotFoundError, RuntimeError: The file is missing or is no head.

    >>> from oml_vit_ext.extractors import IRTExtractor
    >>> irt = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 1, "img_size": 32}).eval()
    >>> ExtractorWithHead(irt, None, dims=[8])(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        extractor: IExtractor,
        weights: str | Path | None,
        dims: Sequence[int] | None = None,
        normalise_features: bool = True,
    ) -> None:
        super().__init__(extractor)
        self.normalise_features = normalise_features
        if weights is None:
            self.head = make_head(extractor.feat_dim, () if dims is None else dims)
        else:
            self.head, fitted_on = load_head(weights)
            self._check(str(weights), fitted_on, dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, dims[-1])``."""
        return mapped(self.project, self.extractor(x))

    def extract(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, dims[-1])``."""
        return self.project(self.extractor.extract(x))

    def project(self, embeddings: Tensor) -> Tensor:
        """Embeddings of the inner extractor ``(B, D)`` -> ``(B, dims[-1])``."""
        dtype = next(self.head.parameters()).dtype
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            projected: Tensor = self.head(embeddings.to(dtype))
        return F.normalize(projected, dim=-1) if self.normalise_features else projected

    @property
    def feat_dim(self) -> int:
        """Width of the embeddings."""
        return self._widths()[-1]

    def _widths(self) -> list[int]:
        return [layer.out_features for layer in self.head if isinstance(layer, nn.Linear)]

    def _check(self, source: str, fitted_on: str, dims: Sequence[int] | None) -> None:
        of_file = self._widths()
        name = type(self.extractor).__name__
        if dims is not None and list(dims) != of_file:
            raise ValueError(f"dims is {list(dims)}, expected {of_file} as in the head {source!r}, or None.")
        if self.head[0].in_features != self.extractor.feat_dim:
            raise ValueError(
                f"head {source!r} is for embeddings of width {self.head[0].in_features}, but {name} has width "
                f"{self.extractor.feat_dim}: fit it on this extractor."
            )
        if fitted_on and fitted_on != (given := hash_state(self.extractor.state_dict())):
            raise ValueError(
                f"head {source!r} was fitted on embeddings of other weights than those of {name} (hash "
                f"{fitted_on[:12]}, not {given[:12]}): fit it on this extractor."
            )
