"""Tells whether two models give the same embeddings."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.hashing import hash_state
from oml_vit_ext.common.messages import counted
from oml_vit_ext.transforms.boxed_images import transformed
from oml_vit_ext.transforms.compose import check_tensor
from oml_vit_ext.transforms.upright import reader_for

# Another device or another version of a library moves an embedding by well under a percent of its length.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a model in order to recognise it.

    Args:
        model: Class of the extractor.
        weights: BLAKE2b over names, types, shapes and bytes of its state dict, in hex.
        transforms: Their ``repr``, for the message only.
        probe: The embedding of a fixed picture: it shows what weights do not, such as pooling, crop, normalisation.
    """

    model: str
    weights: str
    transforms: str
    probe: tuple[float, ...]

    @classmethod
    def of(cls, extractor: nn.Module, transform: Any) -> Fingerprint:
        """The fingerprint of a model.

        Raises:
            ValueError: It does not give one row of finite numbers for an image.
        """
        return cls(
            model=type(extractor).__name__,
            weights=hash_state(extractor.state_dict()),
            transforms=re.sub(r" at 0x[0-9a-f]+", "", repr(transform)),
            probe=tuple(round(value, 7) for value in _probe(extractor, transform).tolist()),
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Fingerprint:
        """Of what :meth:`to_dict` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            found = cls(**{**content, "probe": tuple(map(float, content["probe"]))})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"The fingerprint of the model is damaged ({type(error).__name__}: {error}).") from error
        texts = (found.model, found.weights, found.transforms)
        if not all(isinstance(text, str) for text in texts) or not found.probe or not np.isfinite(found.probe).all():
            raise ValueError(f"The fingerprint of the model is {found!r:.200}, expected texts and finite numbers.")
        return found

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "probe": list(self.probe)}

    @property
    def width(self) -> int:
        """Dimension of the embeddings."""
        return len(self.probe)

    def check_same(self, other: Fingerprint, ours: str, theirs: str) -> None:
        """Raise a ``ValueError`` unless both give the same embeddings.

        Args:
            other: Another model's.
            ours, theirs: What the two stand for, e.g. ``"the index"`` and ``"the query"``.
        """
        difference = self._difference(other, ours, theirs)
        if difference:
            raise ValueError(
                f"{ours.capitalize()} and {theirs} come from different models: {difference}. Distances between their "
                f"embeddings mean nothing: use the model of {ours}, or make it again with this one."
            )

    def _difference(self, other: Fingerprint, ours: str, theirs: str) -> str:
        if self.width != other.width:
            return f"{ours} has embeddings of {counted(self.width, 'dimension')}, {theirs} of {other.width}"
        if self.weights != other.weights:
            return (
                f"the weights of {ours} ({self.model}) have the hash {self.weights[:12]}, "
                f"those of {theirs} ({other.model}) {other.weights[:12]}"
            )
        a, b = np.array(self.probe), np.array(other.probe)
        if np.linalg.norm(a - b) <= _TOLERANCE * np.linalg.norm(a):
            return ""
        if self.transforms != other.transforms:
            one, two = " ".join(self.transforms.split()), " ".join(other.transforms.split())
            return f"the weights agree, but the transforms are {one} for {ours} and {two} for {theirs}"
        return "weights and transforms agree, but one picture gets two embeddings (another pooling or normalisation?)"


def _probe(extractor: nn.Module, transform: Any) -> Tensor:
    """The embedding of smooth noise, 160 × 120 px, through reading and transforms."""
    coarse = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((160, 120), Image.Resampling.BILINEAR).save(buffer, format="PNG")
    picture = reader_for(transform)(buffer.getvalue())
    tensor = transformed(transform, picture)
    check_tensor(tensor)
    device = next((p.device for p in extractor.parameters()), torch.device("cpu"))
    with evaluating(extractor), torch.no_grad():
        found = extractor(tensor[None].to(device))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 1 or found.is_complex():
        kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"The extractor {type(extractor).__name__} gives {kind} for one image, expected real numbers (1, dim)."
        )
    if not found.isfinite().all():
        raise ValueError(
            f"The extractor {type(extractor).__name__} gives NaN or infinity for a test picture, expected finite "
            f"numbers: did its training diverge?"
        )
    return found[0].float().cpu()
