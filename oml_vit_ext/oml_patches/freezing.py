"""Repair of OML: ``freeze_n_epochs`` freezes, in one process and in several.

OML freezes in a hook named ``on_epoch_start``, which Lightning no longer calls since version 2: the head-only epochs
of STIR would train the whole backbone at a hundred times its learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from oml_vit_ext.oml_patches.replacing import replace

_MODULES = {
    "oml.lightning.modules.extractor": "ExtractorModule",
    "oml.lightning.modules.pairwise_postprocessing": "PairwiseModule",
}
_PIPELINES = ("oml.lightning.pipelines.train", "oml.lightning.pipelines.train_postprocessor")


def freeze_in_training() -> None:
    """Apply the repair when OML's training modules are imported."""
    for module, class_name in _MODULES.items():
        register_post_import_hook(lambda m, name=class_name: freeze_at_epoch_start(getattr(m, name)), module)  # type: ignore[misc]
    for module in _PIPELINES:
        register_post_import_hook(let_ddp_find_frozen_parameters, module)


def freeze_at_epoch_start(module_class: Any) -> None:
    """Have Lightning call OML's ``on_epoch_start`` at the start of each training epoch.

    Nothing happens where Lightning calls it itself (before version 2), where the class has a hook that Lightning 2
    knows, and where there is nothing to call.
    """
    from pytorch_lightning import LightningModule

    if hasattr(LightningModule, "on_epoch_start") or not hasattr(module_class, "on_epoch_start"):
        return
    if module_class.on_train_epoch_start is not LightningModule.on_train_epoch_start:
        return

    def on_train_epoch_start(self: Any) -> None:
        self.on_epoch_start()
        if self.current_epoch < self.freeze_n_epochs and not any(p.requires_grad for p in self.parameters()):
            raise RuntimeError(
                f"freeze_n_epochs={self.freeze_n_epochs} froze all parameters of {type(self.model).__name__}, so there "
                f"is nothing to train: expected freeze_n_epochs=0, or a model or criterion with parts that still learn."
            )

    effect = f"freeze_n_epochs of {module_class.__name__} is effective"
    replace(module_class, "on_train_epoch_start", lambda _: on_train_epoch_start, effect)


def let_ddp_find_frozen_parameters(pipeline: ModuleType) -> None:
    """With several processes, DDP waits for the gradients of frozen parameters unless it is told to look for them.

    They cannot be frozen before DDP wraps the model: it would never average their gradients after the thaw.
    """

    def wrap(parse: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def parse_and_find_frozen_parameters(cfg: Mapping[str, Any]) -> dict[str, Any]:
            if cfg.get("freeze_n_epochs") and not cfg.get("find_unused_parameters"):
                cfg = {**cfg, "find_unused_parameters": True}
            return parse(cfg)

        return parse_and_find_frozen_parameters

    effect = f"freeze_n_epochs sets find_unused_parameters of DDP in {pipeline.__name__}"
    replace(pipeline, "parse_engine_params_from_config", wrap, effect)
