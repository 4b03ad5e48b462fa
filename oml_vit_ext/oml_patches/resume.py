"""Addition to OML: a training whose config has the key ``resume`` can be interrupted at any time and goes on exactly.

OML's pipelines give Lightning no checkpoint to go on from, and keep the best one alone, which Lightning writes in
place: an interruption meanwhile leaves half a file. Configs without the keys ``resume`` and ``save_iterations`` are
trained as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from wrapt import register_post_import_hook

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.oml_patches.replacing import replace

logger = logging.getLogger(__name__)

_PIPELINES = {
    "oml.lightning.pipelines.train": "extractor_training_pipeline",
    "oml.lightning.pipelines.train_postprocessor": "postprocessor_training_pipeline",
}


def resume_trainings() -> None:
    """Apply the addition when OML's pipelines, and the repair when Lightning's reader of checkpoints, are imported."""
    for module, name in _PIPELINES.items():
        register_post_import_hook(lambda m, name=name: resume_in(m, name), module)  # type: ignore[misc]
    register_post_import_hook(read_own_checkpoints, "lightning_fabric.plugins.io.torch_io")


def read_own_checkpoints(torch_io: ModuleType) -> None:
    """Let Lightning read its own checkpoints again, with the path in them that torch >= 2.6 refuses by default."""
    import torch

    from oml_vit_ext.extractors.checkpoints import path_classes

    def wrap(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.serialization.safe_globals(path_classes()):
                return load(self, *args, **kwargs)

        return load_checkpoint

    effect = "trainer.fit(ckpt_path=...) takes the paths that checkpoints hold"
    replace(torch_io.TorchCheckpointIO, "load_checkpoint", wrap, effect)


def resume_in(pipeline: ModuleType, name: str) -> None:
    """Have a pipeline of OML understand ``resume`` and ``save_iterations``."""
    import pytorch_lightning as pl

    from oml_vit_ext.oml_patches.run_checkpoints import RunCheckpoints

    def check_before(train: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
        def train_or_resume(cfg: Mapping[str, Any]) -> None:
            train(with_checkpoint(cfg) if is_resumable(cfg) else cfg)

        return train_or_resume

    def keep_last(parse: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def parse_ckpt_callback(cfg: Mapping[str, Any]) -> Any:
            callback = parse(cfg)
            if not is_resumable(cfg):
                return callback
            resume = Path(cfg["resume"]) if cfg.get("resume") else None
            return RunCheckpoints(callback, resume, cfg.get("save_iterations"))

        return parse_ckpt_callback

    def go_on(fit: Callable[..., None]) -> Callable[..., None]:
        def fit_or_go_on(self: Any, *args: Any, **kwargs: Any) -> None:
            resume = next((c.resume for c in self.checkpoint_callbacks if isinstance(c, RunCheckpoints)), None)
            fit(self, *args, **kwargs, **({"ckpt_path": str(resume)} if resume else {}))

        return fit_or_go_on

    replace(pipeline, name, check_before, f"{name} understands resume and save_iterations")
    replace(pipeline, "parse_ckpt_callback_from_config", keep_last, "with the key resume, runs keep last.ckpt")
    replace(pl.Trainer, "fit", go_on, "with the key resume, trainings go on from a checkpoint")


def is_resumable(cfg: Mapping[str, Any]) -> bool:
    return "resume" in cfg or "save_iterations" in cfg


def with_checkpoint(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config with ``resume`` as an absolute path or ``None``; what cannot be resumed from is refused here.

    Raises:
        ValueError: ``save_iterations`` is no positive whole number, or the file does not hold a training.
        FileNotFoundError: There is no such file. ``last`` may be missing: the training then starts afresh.
        RuntimeError: The file is damaged.
    """
    from oml.utils.misc import dictconfig_to_dict

    cfg = dictconfig_to_dict(cast(Any, cfg))
    if cfg.get("save_iterations") is not None:
        check_whole("save_iterations", cfg["save_iterations"], 1)
    file = _checkpoint_named(cfg["resume"]) if cfg.get("resume") else None
    if file is not None:
        _check_it_holds_a_training(file)
        logger.info("The training goes on from %s.", file)
    return {**cfg, "resume": None if file is None else str(file)}


def _checkpoint_named(resume: str) -> Path | None:
    from hydra.utils import to_absolute_path

    from oml_vit_ext.oml_patches.run_checkpoints import LAST

    if resume == "last":
        file = Path.cwd() / "checkpoints" / LAST
        if file.is_file():
            return file
        logger.warning("resume=last: there is no %s, so the training starts afresh.", file)
        return None
    file = Path(to_absolute_path(str(Path(resume).expanduser())))  # as seen from where the script was started
    if not file.is_file():
        raise FileNotFoundError(
            f"resume is {resume!r}, expected 'last' or a checkpoint of a training: there is no file {file}."
        )
    return file


def _check_it_holds_a_training(file: Path) -> None:
    from oml_vit_ext.oml_patches.checkpoint_files import read_checkpoint

    content = read_checkpoint(file, mmap=True, map_location="cpu")
    missing = {"state_dict", "optimizer_states", "loops"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(
            f"resume is {str(file)!r}, expected a checkpoint of a training: it holds no {', '.join(sorted(missing))}. "
            "Weights to start from are given to the extractor."
        )
