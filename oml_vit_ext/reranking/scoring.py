"""Scores pairs of images with a pairwise model, each image loaded and encoded once as far as memory allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oml.interfaces.models import IPairwiseModel
from torch import Tensor, nn

from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.loading import image_name, load_images
from oml_vit_ext.reranking.pair_order import Pairs, Step, order_for_reuse, plan_steps
from oml_vit_ext.reranking.precision import pays
from oml_vit_ext.reranking.siamese import STIRSiamese
from oml_vit_ext.reranking.token_files import read_tokens

# Images that are decoded together: enough for the part of the model that runs per image, small beside the cache.
_IMAGES_PER_BATCH = 32
# Pairs per forward pass on a CPU: with more, what a block hands to the next no longer fits into the caches.
_CPU_PAIRS = 8


@dataclass(frozen=True)
class ScoringStats:
    """What one pass over pairs cost, in this process.

    Attributes:
        pairs: Pairs that were computed.
        images: Distinct images among them.
        decodes: How many times an image was decoded and transformed.
        peak_cached_mb: The most that images, or what the model keeps of them, took at once, in MB (1e6 bytes).
        seconds: Duration of the pass.
        reused: Pairs, over all processes, that were asked for but did not have to be computed: in a file of scores, or
            the same pair in the other order.
    """

    pairs: int = 0
    images: int = 0
    decodes: int = 0
    peak_cached_mb: float = 0.0
    seconds: float = 0.0
    reused: int = 0

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0


def score_pairs(
    model: IPairwiseModel,
    dataset: Any,
    pairs: Pairs,
    *,
    batch_size: int,
    num_workers: int = 0,
    memory_mb: float = 2048,
    half: bool = False,
    verbose: bool = False,
    on_scores: Callable[[NDArray[np.int64], Tensor], None] | None = None,
) -> tuple[Tensor, ScoringStats]:
    """Distances of pairs of images, as ``model.predict`` gives them.

    What ``STIRSiamese.encode`` makes of an image is kept between pairs; of any other model, the decoded image itself. A
    data set with an attribute ``token_files``, a path or ``None`` for each image, spares decoding those with a file of
    a ``TokenStore``.

    Args:
        model: Runs on the device that it is on, in evaluation mode; its modes are restored afterwards.
        dataset: A data set of OML.
        pairs: ``(N, 2)`` ids of images in ``dataset``.
        batch_size: At most so many pairs in one forward pass (on a CPU, fewer at a time are faster and are used).
        num_workers: Processes that decode.
        memory_mb: The most that kept images may take, in MB (1e6 bytes), on the model's device. Images on their way
            from the workers, ``2 * num_workers`` batches of 32, come on top.
        half: Autocast, float16 on a GPU and bfloat16 on a CPU, where it pays (``precision.pays``). Distances are
            float32 in any case.
        verbose: Show a progress bar.
        on_scores: Called with positions in ``pairs`` and their scores, chunk by chunk, as soon as they are computed.

    Returns:
        Scores ``(N,)``, float32, on the CPU, and what the pass cost.

    Raises:
        RuntimeError: An image cannot be read, or a score is not finite; the sentence names the image or the pair.
        ValueError: The images are not of one size, or two of them do not fit into ``memory_mb``.
    """
    started = time.perf_counter()
    scores = torch.full((len(pairs),), float("nan"))
    if len(pairs) == 0:
        return scores, ScoringStats()
    with _inference(model, half):
        cache = _Cache(model, dataset)
        first = int(pairs[0, 0])
        cache.take_from_disk([first])
        if first not in cache.encoded:
            cache.add(*next(load_images(dataset, [[first]], 0)))
        capacity = _capacity(cache.held_mb, memory_mb)
        order = order_for_reuse(pairs, capacity)
        steps = plan_steps(pairs[order], capacity, batch_size, held={first})
        batches = [batch for step in steps for batch in _load_batches(step, cache.files)]
        loading = load_images(dataset, batches, num_workers) if batches else iter(())
        for step in progress(steps, desc=f"Re-ranking on {cache.device}", unit="batch", verbose=verbose):
            cache.drop(step.drop)
            for _ in _load_batches(step, cache.files):
                cache.add(*next(loading))
            for damaged in cache.take_from_disk(step.load):
                cache.add(*next(load_images(dataset, [[damaged]], 0)))
            rows = order[step.pairs]
            found = _score_step(cache, pairs[rows], batch_size)
            _check_finite(found, pairs[rows], dataset)
            scores[rows] = found
            if on_scores is not None:
                on_scores(rows, found)
    stats = ScoringStats(len(pairs), len(np.unique(pairs)), cache.n_added, cache.peak_mb, time.perf_counter() - started)
    return scores, stats


class _Cache:
    """What the model keeps of each image, on the model's device."""

    def __init__(self, model: IPairwiseModel, dataset: Any) -> None:
        self.dataset = dataset
        self.device = device_of(model)
        self.encode: Callable[[Tensor], Tensor] = lambda images: images
        self.distance: Callable[[Tensor, Tensor], Tensor] = model.predict
        if isinstance(model, STIRSiamese):
            self.encode, self.distance = model.encode, model.distance
        self.encoded: dict[int, Tensor] = {}
        self.files: dict[int, Path] = {}  # tokens that are on disk
        if isinstance(model, STIRSiamese):
            self.files = {i: file for i, file in enumerate(getattr(dataset, "token_files", ())) if file is not None}
        self.n_added, self.held_mb, self.peak_mb = 0, 0.0, 0.0

    def add(self, ids: list[int], images: Tensor) -> None:
        for i, encoded in zip(ids, self.encode(images.to(self.device)), strict=True):
            self.encoded[i] = encoded.clone()  # a view would keep the whole batch
            self.held_mb += encoded.nbytes / 1e6
        self.n_added += len(ids)
        self.peak_mb = max(self.peak_mb, self.held_mb)

    def take_from_disk(self, ids: list[int]) -> list[int]:
        """Those of the images that have a file; returns those whose file is gone or damaged."""
        damaged = []
        for i in (i for i in ids if i in self.files):
            tokens = read_tokens(self.files[i])
            if tokens is None:
                damaged.append(i)
                continue
            self.encoded[i] = tokens.to(self.device)
            self.held_mb += tokens.nbytes / 1e6
        self.peak_mb = max(self.peak_mb, self.held_mb)
        return damaged

    def drop(self, ids: list[int]) -> None:
        for i in ids:
            self.held_mb -= self.encoded.pop(i).nbytes / 1e6

    def take(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.stack([self.encoded[i] for i in ids.tolist()])


def _score_step(cache: _Cache, pairs: Pairs, batch_size: int) -> Tensor:
    size = min(batch_size, _CPU_PAIRS) if cache.device.type == "cpu" else batch_size
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    found = [cache.distance(cache.take(part[:, 0]), cache.take(part[:, 1])).float().flatten() for part in parts]
    return torch.cat(found).cpu()


def _load_batches(step: Step, on_disk: Mapping[int, Path]) -> Iterator[list[int]]:
    """The images of a step that are to be decoded, a few at a time."""
    ids = [i for i in step.load if i not in on_disk]
    for start in range(0, len(ids), _IMAGES_PER_BATCH):
        yield ids[start : start + _IMAGES_PER_BATCH]


def _capacity(image_mb: float, memory_mb: float) -> int:
    capacity = int(memory_mb / image_mb)
    if capacity < 2:
        raise ValueError(
            f"memory_mb is {memory_mb:g}, but one image takes {image_mb:.3g} MB and a pair needs two: expected "
            f"{2 * image_mb:.3g} or more."
        )
    return capacity


def _check_finite(scores: Tensor, pairs: Pairs, dataset: Any) -> None:
    wrong = (~scores.isfinite()).nonzero().flatten().tolist()
    if wrong:
        first, second = (image_name(dataset, int(i)) for i in pairs[wrong[0]])
        raise RuntimeError(
            f"The pairwise model gives {scores[wrong[0]].item()} for {first} and {second} (and for "
            f"{counted(len(wrong) - 1, 'more pair')} of this batch): check its weights for NaN, or turn half "
            f"precision off (use_fp16: False)."
        )


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def _inference(model: nn.Module, half: bool) -> Iterator[None]:
    """Evaluation mode, no gradients, half precision if asked for."""
    device = device_of(model)
    dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
    autocast = torch.autocast(device.type, dtype=dtype, enabled=pays(half, device))
    with evaluating(model), torch.inference_mode(), autocast:
        yield
