"""Images of an OML data set by their ids: each decoded when asked for, in worker processes, in a given order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oml_vit_ext.images.reading import why_unreadable


def load_images(dataset: Any, batches: list[list[int]], num_workers: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield ``(ids, images (B, ...))`` for each batch of ids.

    Raises:
        RuntimeError: An image cannot be read or transformed; the sentence names it.
        ValueError: The images are not all of one size; the sentence names two that differ.
    """
    loader = DataLoader(
        _ImagesById(dataset),
        batch_sampler=batches,
        num_workers=min(num_workers, len(batches)),
        collate_fn=_collate,
    )
    first: tuple[int, Tensor] | None = None
    for ids, images, problem in loader:
        if problem is not None:
            raise RuntimeError(problem)
        for i, image in zip(ids, images, strict=True):
            first = first or (i, image)
            if image.shape != first[1].shape:
                raise ValueError(
                    f"Images of one pair must have the same size, but {image_name(dataset, i)} comes out of the "
                    f"transforms as {tuple(image.shape)} and {image_name(dataset, first[0])} as "
                    f"{tuple(first[1].shape)}: use transforms that crop or resize every image to one size."
                )
        yield ids, torch.stack(images) if isinstance(images, list) else images


def image_name(dataset: Any, i: int) -> str:
    """What a user knows image ``i`` by: its path if the data set has paths."""
    paths = getattr(getattr(dataset, "_dataset", dataset), "_paths", None)
    if paths is None and hasattr(dataset, "df") and "path" in dataset.df:
        paths = dataset.df["path"].tolist()
    return f"image {str(paths[i])!r}" if paths is not None else f"item {i} of {type(dataset).__name__}"


class _ImagesById(Dataset[Any]):
    """An error is returned, not raised: out of a worker process it would come wrapped into that process's traceback."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, i: int) -> tuple[int, Tensor | None, str | None]:
        try:
            return i, self.dataset[i][self.dataset.input_tensors_key], None
        except Exception as error:
            reason = why_unreadable(error).rstrip(".")
            return (
                i,
                None,
                (
                    f"{image_name(self.dataset, i)} cannot be read or transformed ({reason}). "
                    f"Replace the file, or take its row out of the data set's dataframe and retrieve again."
                ),
            )


def _collate(
    items: list[tuple[int, Tensor | None, str | None]],
) -> tuple[list[int], Tensor | list[Tensor], str | None]:
    problem = next((problem for _, _, problem in items if problem is not None), None)
    images = [image for _, image, _ in items if image is not None]
    same_size = len({image.shape for image in images}) == 1
    return [i for i, _, _ in items], torch.stack(images) if same_size else images, problem
