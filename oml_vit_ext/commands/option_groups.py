"""Options that belong together and that several commands take: one argument of a function, an option each to type."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from oml_vit_ext.commands.options import (
    Address,
    BatchSize,
    Collection,
    Device,
    EmbedsOn,
    Engine,
    GpusPerWorker,
    NumWorkers,
    TrustFaissFile,
    TrustWeights,
    Workers,
)

if TYPE_CHECKING:
    from oml_vit_ext.retrieval import Embedder, ImageIndex


@dataclass(frozen=True)
class Access:
    """How an index is opened, and how its model embeds images."""

    collection: Collection = "images"
    device: Device = None
    batch_size: BatchSize = 64
    num_workers: NumWorkers = 0
    trust_weights: TrustWeights = False
    trust_faiss_file: TrustFaissFile = None

    @property
    def opening(self) -> dict[str, Any]:
        """Of ``open_index``."""
        return {"collection": self.collection, "trust_faiss_file": self.trust_faiss_file}

    @property
    def embedding(self) -> dict[str, Any]:
        """Of ``Embedder``."""
        return {"batch_size": self.batch_size, "num_workers": self.num_workers, "device": self.device}

    def embedder_of(self, index: ImageIndex) -> Embedder:
        return index.embedder(trust_weights=self.trust_weights, **self.embedding)


@dataclass(frozen=True)
class Cluster:
    """Where images are embedded."""

    engine: Engine = EmbedsOn.LOCAL
    address: Address = None
    workers: Workers = 1
    gpus_per_worker: GpusPerWorker = 0.0

    def with_its_machines(self, embedder: Embedder) -> Embedder:
        """The same model, on the machines of the cluster if there is one."""
        if self.engine is EmbedsOn.LOCAL:
            return embedder
        from oml_vit_ext.retrieval import RayEmbedder

        return RayEmbedder(
            embedder.extractor,
            embedder.transform,
            config=embedder.config,
            batch_size=embedder.batch_size,
            num_workers=embedder.num_workers,
            address=self.address,
            workers=self.workers,
            gpus_per_worker=self.gpus_per_worker,
        )


def ungrouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its arguments of such a class as arguments of its own."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in signature.parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            hints = get_type_hints(parameter.annotation, include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
                )
                for field in fields(parameter.annotation)
            ]
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        for name, group in groups.items():
            own = {field.name: given.pop(field.name) for field in fields(group) if field.name in given}
            given[name] = group(**own)
        command(*args, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
