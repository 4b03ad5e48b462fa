"""Connection of OML: a batch sampler learns the epoch of a resumed training; one that mines gets the model, too.

OML builds the sampler before the model and never connects the two. We connect them before the first batch: for
extractors in ``train_dataloader()``, which Lightning calls after restoring a checkpoint; for re-rankers, whose loader
the pipeline may hand over itself, in ``on_fit_start()``. Lightning 2.1 tells the epoch to samplers of images, not to
batch samplers, and starts to iterate twice when it resumes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from wrapt import register_post_import_hook

from oml_vit_ext.common.distributed import gather_rows, gather_sizes, rank_and_world
from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.progress import progress
from oml_vit_ext.oml_patches.replacing import replace

logger = logging.getLogger(__name__)


def introduce_samplers() -> None:
    """Apply the connection when OML's training modules are imported."""
    register_post_import_hook(lambda m: introduce_in(m.ExtractorModuleDDP), "oml.lightning.modules.extractor")
    pairs = "oml.lightning.modules.pairwise_postprocessing"
    register_post_import_hook(lambda m: introduce_to_pairs_in(m.PairwiseModule), pairs)


def introduce_in(module_class: Any) -> None:
    """Have ``train_dataloader`` of OML's module call ``follow_epochs``, ``mine_with``, ``report_to`` of the sampler."""

    def wrap(train_dataloader: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def introduce_and_load(self: Any) -> Any:
            loader = self.loaders_train
            sampler: Any = getattr(loader, "batch_sampler", None)
            _connect(sampler, self)
            if hasattr(sampler, "mine_with"):
                sampler.mine_with(lambda rows: embed(self, loader, rows))
                logger.info("open-metric-learning: %s mines with the model that is trained", type(sampler).__name__)
            return train_dataloader(self)

        return introduce_and_load

    replace(module_class, "train_dataloader", wrap, "batch samplers learn the epoch and the model of a training")


def introduce_to_pairs_in(module_class: Any) -> None:
    """Have ``on_fit_start`` of OML's module for pairs call the sampler's ``follow_epochs``, ``use_embeddings``, too."""

    def wrap(on_fit_start: Callable[[Any], None]) -> Callable[[Any], None]:
        def introduce_and_start(self: Any) -> None:
            # With several processes the module holds the loader, otherwise the pipeline gave it to the trainer.
            loader = getattr(self, "loaders_train", None) or self.trainer.fit_loop._data_source.instance
            sampler: Any = getattr(loader, "batch_sampler", None)
            _connect(sampler, self)
            if hasattr(sampler, "use_embeddings"):
                sampler.use_embeddings(loader.dataset.extra_data[self.embeddings_key])
            on_fit_start(self)

        return introduce_and_start

    effect = "batch samplers learn the epoch of a training of re-rankers, and the first stage's embeddings"
    replace(module_class, "on_fit_start", wrap, effect)


def _connect(sampler: Any, module: Any) -> None:
    if hasattr(sampler, "follow_epochs"):
        sampler.follow_epochs(lambda: module.current_epoch)
    if hasattr(sampler, "report_to"):
        sampler.report_to(lambda figures: log_figures(module, figures))


def log_figures(module: Any, figures: dict[str, float]) -> None:
    """Figures of a sampler to the loggers of the training; Lightning takes none from outside of its steps."""
    for each in module.loggers:
        each.log_metrics(figures, step=module.global_step)


def embed(module: Any, loader: DataLoader[Any], rows: NDArray[np.int64]) -> Tensor:
    """Embeddings ``(n, D)`` of length 1 of rows of the loader's data set, by the module's model in evaluation mode.

    Images go through the transform of the data set. Each process embeds its share; all get everything.
    """
    rank, world = rank_and_world()
    share = np.array_split(rows, world)[rank]
    # A process without a share, of which there are some for few rows, embeds one in vain: it must know D to join in.
    part = DataLoader(
        Subset(loader.dataset, (share if len(share) else rows[:1]).tolist()),
        batch_size=loader.batch_sampler.batch_size,  # type: ignore[union-attr]
        num_workers=loader.num_workers,
    )
    with evaluating(module.model), torch.no_grad(), module.trainer.precision_plugin.forward_context():
        found = [
            module.model(batch[module.input_tensors_key].to(module.device)).float()
            for batch in progress(part, desc="Mining hard negatives", verbose=rank == 0, leave=False)
        ]
    local = torch.nn.functional.normalize(torch.cat(found), dim=-1)[: len(share)] if found else torch.empty(0)
    if world == 1:
        return local
    return torch.cat(gather_rows(local, gather_sizes(len(local), local.device)))
