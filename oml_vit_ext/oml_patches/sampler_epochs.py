"""Connection of OML: a batch sampler learns the epoch of a resumed training; one that mines gets the model, too.

OML builds the sampler before the model and never introduces them. They meet in the module that Lightning trains,
when it hands out its training loader, which is after a checkpoint was read and before the first batch is drawn.
Lightning 2.1 tells the epoch to samplers of images, not to batch samplers, and starts to iterate twice when it resumes.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from wrapt import register_post_import_hook

from oml_vit_ext.common.distributed import gather_rows, gather_sizes, rank_and_world
from oml_vit_ext.common.evaluating import evaluating

logger = logging.getLogger(__name__)


def introduce_samplers() -> None:
    """Apply the connection when OML's training module is imported."""
    register_post_import_hook(lambda m: introduce_in(m.ExtractorModuleDDP), "oml.lightning.modules.extractor")


def introduce_in(module_class: Any) -> None:
    """Have ``train_dataloader`` of OML's module call ``follow_epochs`` or ``mine_with`` of the batch sampler."""
    oml_train_dataloader = module_class.train_dataloader
    if getattr(oml_train_dataloader, "_from_oml_vit_ext", False):
        return

    def train_dataloader(self: Any) -> Any:
        sampler = getattr(self.loaders_train, "batch_sampler", None)
        if sampler is not None and hasattr(sampler, "mine_with"):
            loader = self.loaders_train
            sampler.mine_with(lambda rows: describe(self, loader, rows), epoch=lambda: self.current_epoch)
            logger.info("open-metric-learning: %s mines with the model that is trained", type(sampler).__name__)
        elif sampler is not None and hasattr(sampler, "follow_epochs"):
            sampler.follow_epochs(lambda: self.current_epoch)
        return oml_train_dataloader(self)

    train_dataloader._from_oml_vit_ext = True  # type: ignore[attr-defined]
    module_class.train_dataloader = train_dataloader


def describe(module: Any, loader: DataLoader[Any], rows: NDArray[np.int64]) -> Tensor:
    """Descriptors ``(n, D)`` of length 1 of rows of the loader's data set, by the module's model in evaluation mode.

    Images go through the transform of the data set. Each process describes its share; all get everything.
    """
    rank, world = rank_and_world()
    shares = np.array_split(rows, world)
    part = DataLoader(
        Subset(loader.dataset, shares[rank].tolist()),
        batch_size=loader.batch_sampler.batch_size,  # type: ignore[union-attr]
        num_workers=loader.num_workers,
    )
    with evaluating(module.model), torch.no_grad(), module.trainer.precision_plugin.forward_context():
        found = [
            module.model(batch[module.input_tensors_key].to(module.device)).float()
            for batch in tqdm(part, desc="Mining hard negatives", disable=rank > 0, leave=False)
        ]
    local = torch.nn.functional.normalize(torch.cat(found), dim=-1) if found else torch.empty(0)
    if world == 1:
        return local
    return torch.cat(gather_rows(local, gather_sizes(len(local), local.device)))
