"""Embeddings of many images on a Ray cluster: a model on each device, blocks of paths go in, rows come out."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.common.progress import progress
from oml_vit_ext.retrieval.index.embedder import Embedded, Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_list import box_text, parse_box


class RayEmbedder(Embedder):
    """An :class:`Embedder` whose images are read and embedded by the machines of a Ray cluster.

    It goes wherever an embedder goes: ``index.add(folder, RayEmbedder.from_config(...))``. The images are cut into
    blocks; Ray computes the block of a lost machine again, and each image comes back exactly once. What the index has
    stored stays stored: after an interruption the same ``add`` goes on with the rest.

    All machines must see the images and the weights under the same paths, and have this package installed. The
    embedding of a fixed picture is compared on each of them before its first block, as an index does with its queries.

    Args:
        extractor, transform: As for :class:`Embedder`. The model given here answers queries, on the CPU.
        address: Of the cluster, e.g. ``ray://head:10001`` or ``auto`` for the one that this machine belongs to;
            ``None`` starts one on this machine alone, unless the process is connected already.
        workers: How many models at once.
        cpus_per_worker, gpus_per_worker: What Ray reserves for each.
        block_size: Images in a block: what is computed again when a machine is lost.
        settings: ``config``, ``batch_size`` and ``num_workers``, as for :class:`Embedder`. ``config`` is needed: it is
            how the machines build the model.

    Raises:
        ImportError: The extra ``ray`` is not installed.
        ValueError: ``config`` is missing, or a number is not positive.
    """

    def __init__(
        self,
        extractor: nn.Module,
        transform: Any,
        *,
        address: str | None = None,
        workers: int = 1,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        block_size: int = 256,
        **settings: Any,
    ) -> None:
        super().__init__(extractor, transform, device="cpu", **settings)
        if self.config is None:
            raise ValueError("config is None, expected {'extractor': ..., 'transforms': ...}: Ray's workers need it.")
        for name, value in (("workers", workers), ("block_size", block_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")
        self._ray = _import_ray()
        self.address = address
        self.workers = workers
        self.reserved = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker}
        self.block_size = block_size

    def embed(
        self, paths: Sequence[Path], boxes: Sequence[Box | None] | None = None, *, verbose: bool = False
    ) -> Iterator[Embedded]:
        """As :meth:`Embedder.embed`, but the blocks come in the order in which they are finished.

        Raises:
            RuntimeError: The cluster cannot be reached, or gives up.
        """
        if not paths:
            return
        self._connect()
        ray, data, pa = self._ray, importlib.import_module("ray.data"), importlib.import_module("pyarrow")
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False  # there is ours
        context.execution_options.preserve_order = False
        texts = [box_text(box) for box in boxes] if boxes else [""] * len(paths)
        blocks = data.from_arrow(
            [
                pa.table(
                    {
                        "position": pa.array(range(start, min(start + self.block_size, len(paths))), pa.int64()),
                        "path": pa.array([*map(os.fsencode, paths[start : start + self.block_size])], pa.binary()),
                        "box": pa.array(texts[start : start + self.block_size], pa.string()),
                    }
                )
                for start in range(0, len(paths), self.block_size)
            ]
        )
        embedded = blocks.map_batches(
            _BlockEmbedder,
            fn_constructor_kwargs={
                "config": self.config,
                "fingerprint": self.fingerprint.to_dict(),
                "settings": {"batch_size": self.batch_size, "num_workers": self.num_workers},
            },
            batch_size=self.block_size,
            compute=data.ActorPoolStrategy(size=self.workers),
            **self.reserved,
        )
        with progress(total=len(paths), desc="Embedding images", unit=" images", verbose=verbose) as bar:
            try:
                for block in embedded.iter_batches(batch_size=None, batch_format="numpy"):
                    yield _embedded(block)
                    bar.update(len(block["position"]))
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"Ray gave up while it embedded images: {_last_line(error)}") from error

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            return
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ray.exceptions.RayError, TimeoutError, RuntimeError, ValueError) as error:
            raise RuntimeError(f"The Ray cluster {self.address!r} cannot be reached: {_last_line(error)}") from error


class _BlockEmbedder:
    """What runs on a device of the cluster."""

    def __init__(self, config: Mapping[str, Any], fingerprint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        import torch  # Ray's workers start with one thread for each processor that they have reserved

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._embedder = Embedder.from_config(config["extractor"], config["transforms"], device=device, **settings)
        Fingerprint.from_dict(fingerprint).check_same(self._embedder.fingerprint, "the index", "a worker of Ray")

    def __call__(self, block: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        paths = [Path(os.fsdecode(path)) for path in block["path"]]
        boxes = [parse_box(box) for box in block["box"]]
        embeddings = np.zeros((len(paths), self._embedder.fingerprint.width), dtype=np.float32)
        reasons = np.full(len(paths), "", dtype=object)
        for batch in self._embedder.embed(paths, boxes):
            embeddings[batch.positions] = batch.embeddings
            for position, reason in batch.broken:
                reasons[position] = reason
        return {"position": block["position"], "embedding": embeddings, "reason": reasons}


def _embedded(block: Mapping[str, NDArray[Any]]) -> Embedded:
    positions, reasons = block["position"].tolist(), block["reason"].tolist()
    good = [not reason for reason in reasons]
    return Embedded(
        [position for position, is_good in zip(positions, good, strict=True) if is_good],
        np.ascontiguousarray(np.stack(list(block["embedding"]))[good], dtype=np.float32),
        [(position, reason) for position, reason in zip(positions, reasons, strict=True) if reason],
    )


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(f"A Ray cluster needs ray ({error}): pip install 'oml-vit-ext[ray]'.") from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
