"""A model with its transforms: image files in, embeddings out, broken images listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oml.registry.models import EXTRACTORS_REGISTRY, get_extractor_by_cfg
from oml.registry.transforms import TRANSFORMS_REGISTRY, get_transforms_by_cfg
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from oml_vit_ext.common.arrays import Box, Floats
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.reading import why_unreadable
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.model_config import part, plain
from oml_vit_ext.retrieval.old_names import OldBatchNames, OldEmbedderNames
from oml_vit_ext.transforms.boxed_images import BoxedImages
from oml_vit_ext.transforms.compose import as_any_compose
from oml_vit_ext.transforms.upright import reader_for

_Item = tuple[int, Tensor | None, str]
_Packed = tuple[Tensor, list[tuple[int, torch.Size | None, str]]]  # all values of a batch, and what they belong to


@dataclass(frozen=True)
class Embedded(OldBatchNames):
    """One batch: which of the images, their embeddings ``(n, dim)``, and which could not be embedded, and why."""

    positions: list[int]
    embeddings: Floats
    broken: list[tuple[int, str]]


class Embedder(OldEmbedderNames):
    """An extractor, the transforms of its images, and where it runs.

    Args:
        extractor: Maps ``(B, 3, H, W)`` to ``(B, dim)``. It is put into evaluation mode.
        transform: A ``Compose`` of torchvision (v1 or v2) or albumentations, as for OML's datasets, or anything else
            that turns a picture into a tensor, such as ``ResNet50_Weights.DEFAULT.transforms()``.
        config: How to build both again, ``{"extractor": {name, args}, "transforms": {name, args}}``; an index keeps it.
        batch_size: Images at once.
        num_workers: Processes that read images; 0 reads them in this one.
        device: ``None``: the GPU if there is one.
    """

    def __init__(
        self,
        extractor: nn.Module,
        transform: Any,
        *,
        config: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        device: str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.extractor = extractor.to(self.device).eval()
        self.transform = as_any_compose(transform)
        self.config = None if config is None else plain(config)
        self.batch_size = batch_size
        self.num_workers = num_workers

    @classmethod
    def from_config(cls, extractor: Mapping[str, Any], transforms: Mapping[str, Any], **settings: Any) -> Embedder:
        """Build from the two parts of a YAML config, each ``{name, args}``; ``settings`` as in the constructor.

        Raises:
            ValueError: One has another form, or a name that is not registered.
        """
        config = {"extractor": part("extractor", extractor), "transforms": part("transforms", transforms)}
        for kind, registry in (("extractor", EXTRACTORS_REGISTRY), ("transforms", TRANSFORMS_REGISTRY)):
            if config[kind]["name"] not in registry:
                raise ValueError(unknown_name(kind, config[kind]["name"], registry, max_listed=20))
        return cls(
            get_extractor_by_cfg(config["extractor"]),
            get_transforms_by_cfg(config["transforms"]),
            config=config,
            **settings,
        )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint.of(self.extractor, self.transform)

    def embed(
        self, paths: Sequence[Path], boxes: Sequence[Box | None] | None = None, *, verbose: bool = False
    ) -> Iterator[Embedded]:
        """Embeddings of image files, or of the parts of them inside ``boxes`` (px of the upright image), in order: cut
        at the borders.

        They come batch by batch. An image that cannot be read, or whose embedding is not finite or all zeros, is
        reported with the reason.
        """
        images = BoxedImages(paths, boxes, self.transform, _LastImage(reader_for(self.transform)))
        loader: DataLoader[Any] = DataLoader(
            _Readable(images), batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=_pack
        )
        with progress(total=len(paths), desc="Embedding images", unit=" images", verbose=verbose) as bar:
            for packed in loader:
                batch = _unpack(packed)
                yield self._embed_batch(batch)
                bar.update(len(batch))

    def embed_all(
        self, paths: Path | str | Sequence[Path], boxes: Sequence[Box | None] | None = None, *, verbose: bool = False
    ) -> Floats:
        """Embeddings ``(len(paths), dim)`` of images, or of the parts of them inside ``boxes`` (px), in order.

        Raises:
            ValueError: An image cannot be read, or its embedding is not finite or all zeros.
        """
        paths = [Path(paths)] if isinstance(paths, (str, Path)) else paths
        parts = []
        for batch in self.embed(paths, boxes, verbose=verbose):
            for position, reason in batch.broken:
                raise ValueError(f"The image {str(paths[position])!r} cannot be used: {reason}.")
            parts.append(batch.embeddings)
        return np.concatenate(parts) if parts else np.empty((0, self.fingerprint.width), dtype=np.float32)

    def _embed_batch(self, batch: list[_Item]) -> Embedded:
        broken = [(position, reason) for position, tensor, reason in batch if tensor is None]
        readable = [(position, tensor) for position, tensor, _ in batch if tensor is not None]
        embeddings = self._forward([tensor for _, tensor in readable])
        good = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
        for (position, _), is_good in zip(readable, good, strict=True):
            if not is_good:
                broken.append((position, "its embedding is not finite, or all zeros"))
        return Embedded([p for (p, _), ok in zip(readable, good, strict=True) if ok], embeddings[good], sorted(broken))

    @torch.no_grad()
    def _forward(self, tensors: list[Tensor]) -> Floats:
        """``(n, dim)``; images of one size go through together."""
        if not tensors:
            return np.empty((0, self.fingerprint.width), dtype=np.float32)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, tensor in enumerate(tensors):
            by_shape.setdefault(tuple(tensor.shape), []).append(i)
        embeddings: list[Floats] = [np.empty(0, dtype=np.float32)] * len(tensors)
        for members in by_shape.values():
            out = self.extractor(torch.stack([tensors[i] for i in members]).to(self.device)).float().cpu().numpy()
            for i, row in zip(members, out, strict=True):
                embeddings[i] = row
        return np.stack(embeddings)


class _LastImage:
    """A reader that does not decode the image again whose parts follow each other."""

    def __init__(self, reader: Callable[[Any], Any]) -> None:
        self._reader = reader
        self._content: Path | str | bytes | None = None
        self._image: Any = None

    def __call__(self, content: Path | str | bytes) -> Any:
        if content != self._content:
            self._image = self._reader(content)
            self._content = content
        return self._image


class _Readable(Dataset[_Item]):
    """Items of OML's dataset; an image that cannot be read is an item too."""

    def __init__(self, images: BoxedImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: int) -> _Item:
        try:
            return item, torch.as_tensor(self._images[item][self._images.input_tensors_key]), ""
        except Exception as error:  # decoders raise whatever they like on broken files
            return item, None, why_unreadable(error).rstrip(".")


def _pack(items: list[_Item]) -> _Packed:
    """One tensor for a batch: every tensor that a worker sends takes a file descriptor until it is used."""
    values = [tensor.reshape(-1) for _, tensor, _ in items if tensor is not None]
    shapes = [(position, None if tensor is None else tensor.shape, reason) for position, tensor, reason in items]
    return torch.cat(values) if values else torch.empty(0), shapes


def _unpack(packed: _Packed) -> list[_Item]:
    values, shapes = packed
    parts = iter(values.split([shape.numel() for _, shape, _ in shapes if shape is not None]))
    return [(i, None if shape is None else next(parts).view(shape), reason) for i, shape, reason in shapes]
