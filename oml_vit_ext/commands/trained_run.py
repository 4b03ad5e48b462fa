"""The folder of a training: its config, its best model, and how the model is built again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_CONFIG = Path(".hydra", "config.yaml")


def is_run(folder: str | Path) -> bool:
    """Whether a training has written its config there."""
    return (Path(folder) / _CONFIG).is_file()


def best_checkpoint(run: str | Path) -> Path:
    """The checkpoint with the best validation: ``best.ckpt``, or the latest of its versions.

    Raises:
        FileNotFoundError: There is none.
    """
    folder = Path(run).absolute() / "checkpoints"
    found = sorted(folder.glob("best*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"{str(run)!r} has no checkpoints/best.ckpt, expected the folder of a training that was validated at least "
            f"once: oml-vit-ext train prints it at its end."
        )
    return found[-1]


def config_of(run: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that the training was run with; ``overrides`` are of the form ``key=value``.

    Raises:
        FileNotFoundError: This is not the folder of a training.
    """
    if not is_run(run):
        raise FileNotFoundError(
            f"{str(run)!r} is not the folder of a training: it has no {_CONFIG.as_posix()}. Expected the folder that "
            f"oml-vit-ext train prints at its end."
        )
    cfg = OmegaConf.load(Path(run) / _CONFIG)
    changed = OmegaConf.merge(cfg, OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(changed, DictConfig)
    return changed


def with_weights(extractor: DictConfig | dict[str, Any], weights: str | Path) -> dict[str, Any]:
    """The config of an extractor that takes all its weights from one file."""
    plain: Any = OmegaConf.to_container(extractor, resolve=True) if isinstance(extractor, DictConfig) else extractor
    args = {**plain["args"], "weights": str(weights)}
    inner = args.get("extractor")
    if isinstance(inner, dict) and "weights" in inner.get("args", {}):
        args["extractor"] = {**inner, "args": {**inner["args"], "weights": None}}
    return {**plain, "args": args}


def model_of(run: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Extractor and transforms, each ``{name, args}``, of the best model of a training.

    Raises:
        FileNotFoundError: This is not the folder of a training, or it has no checkpoint.
        ValueError: The training was not that of an extractor.
    """
    cfg = config_of(run, overrides)
    if "transforms_val" not in cfg:
        raise ValueError(f"{str(run)!r} holds a training without transforms_val, expected that of an extractor.")
    transforms: Any = OmegaConf.to_container(cfg.transforms_val, resolve=True)
    return with_weights(cfg.extractor, best_checkpoint(run)), transforms
