"""Addition to OML: a training whose config has the key ``resume`` can be interrupted at any time and goes on exactly.

OML's pipelines give Lightning no checkpoint to go on from, and keep the best one alone, which Lightning writes in
place: an interruption meanwhile leaves half a file. Configs without the keys ``resume`` and ``save_iterations`` are
trained as ever.
"""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.oml_patches.replacing import replace

logger = logging.getLogger(__name__)

_PIPELINES = ("oml.lightning.pipelines.train", "oml.lightning.pipelines.train_postprocessor")


def resume_trainings() -> None:
    """Apply the addition when OML's pipelines, and the repair when Lightning's reader of checkpoints, are imported."""
    for module in _PIPELINES:
        register_post_import_hook(resume_in, module)
    register_post_import_hook(read_own_checkpoints, "lightning_fabric.plugins.io.torch_io")


def read_own_checkpoints(torch_io: ModuleType) -> None:
    """Let Lightning read its own checkpoints again, with the paths and plain data that torch >= 2.6 refuses by default.

    Plain data are numbers and arrays of numpy, parsed arguments and configs of OmegaConf, as callbacks and
    ``save_hyperparameters`` leave them.
    """
    from oml_vit_ext.common.checkpoint_values import filled, plain_values
    from oml_vit_ext.common.written_out import check_written_out
    from oml_vit_ext.extractors.checkpoints import first_reason, reading_paths

    def wrap(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_checkpoint(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                with reading_paths(*plain_values()):
                    content = load(self, path, *args, **kwargs)
                check_written_out(content, may_hold_itself=True)
                return filled(content)
            except ValueError as error:
                raise RuntimeError(f"Checkpoint {str(path)!r} cannot be read: {error}.") from error
            except pickle.UnpicklingError as error:
                raise RuntimeError(
                    f"Checkpoint {str(path)!r} holds more than tensors and plain data ({first_reason(error)}): reading "
                    f"it could run any code. Keep such values as numbers, texts, lists and dicts."
                ) from error

        return load_checkpoint

    effect = "trainer.fit(ckpt_path=...) takes the paths and the plain data that checkpoints hold"
    replace(torch_io.TorchCheckpointIO, "load_checkpoint", wrap, effect)


def resume_in(pipeline: ModuleType) -> None:
    """Have a pipeline of OML understand ``resume`` and ``save_iterations``.

    The function that people call is left as it is: a script may have imported it before this package is registered.
    """
    import pytorch_lightning as pl

    from oml_vit_ext.oml_patches.run_checkpoints import RunCheckpoints
    from oml_vit_ext.oml_patches.run_lock import alone_in

    def find_checkpoint(as_dict: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        def config_with_checkpoint(cfg: Any) -> dict[str, Any]:
            plain = as_dict(cfg)
            return with_checkpoint(plain) if is_resumable(plain) else plain

        return config_with_checkpoint

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
            ours = next((c for c in self.checkpoint_callbacks if isinstance(c, RunCheckpoints)), None)
            if ours is None:
                return fit(self, *args, **kwargs)
            with alone_in(ours.folder) if self.is_global_zero else nullcontext():
                try:
                    fit(self, *args, **kwargs, **({"ckpt_path": str(ours.resume)} if ours.resume else {}))
                except SystemExit as error:
                    if not getattr(self, "received_sigterm", False) or error.code:
                        raise
                    raise SystemExit(128 + signal.SIGTERM) from error  # Lightning's says that all is well
                except Exception as error:
                    if ours.resume is None or ours.has_begun:
                        raise
                    raise RuntimeError(
                        f"Checkpoint {str(ours.resume)!r} does not fit this training: {_in_short(error)}"
                    ) from error
            if self.interrupted:  # by Ctrl-C, which Lightning keeps to itself
                raise KeyboardInterrupt

        return fit_or_go_on

    # The first thing that a pipeline does with its config.
    replace(pipeline, "dictconfig_to_dict", find_checkpoint, f"{pipeline.__name__} understands resume")
    replace(pipeline, "parse_ckpt_callback_from_config", keep_last, "with the key resume, runs keep last.ckpt")
    replace(pl.Trainer, "fit", go_on, "with the key resume, trainings go on from a checkpoint")


_MOST_SAID = 400  # characters: torch lists every tensor of a model that is another one


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__}: "
    return f"{kind}{text[:_MOST_SAID]}{' ...' if len(text) > _MOST_SAID else ''}"


def is_resumable(cfg: Mapping[str, Any]) -> bool:
    return "resume" in cfg or "save_iterations" in cfg


def with_checkpoint(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config with ``resume`` as an absolute path or ``None``; what cannot be resumed from is refused here.

    Raises:
        ValueError: ``save_iterations`` is no positive whole number, or the file does not hold a training.
        FileNotFoundError: There is no such file. ``last`` may be missing: the training then starts afresh.
        RuntimeError: The file is damaged.
    """
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
