"""The folder that Hydra makes for a run of OML: its config, and the checkpoint that it left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oml_vit_ext.common.home import argument_with_home, with_home
from oml_vit_ext.common.messages import unknown_name

CONFIG, ABOUT_HYDRA = ".hydra/config.yaml", ".hydra/hydra.yaml"
_BEST = "checkpoints/best.ckpt"
_VERSION = re.compile(r"best(?:-v(\d+))?\.ckpt")
_RESUMABLE = re.compile(r"^(resume|save_iterations):", re.MULTILINE)


@dataclass(frozen=True)
class RunFolder:
    """What a run was told and what it left.

    Attributes:
        path: The folder, absolute.
        config: Of the run, plain, with files and folders that exist named by absolute paths.
        checkpoint: Of the model that it trained; ``None`` for a validation, whose config says it all.
    """

    path: Path
    config: dict[str, Any]
    checkpoint: Path | None

    @property
    def has_reranker(self) -> bool:
        """Whether it trained, or validated, a re-ranker."""
        return bool(self.config.get("postprocessor"))


def is_run(folder: Path | str) -> bool:
    """Whether Hydra has written the config of a run there."""
    return (Path(folder) / CONFIG).is_file()


def read_run(
    folder: Path | str,
    checkpoint: Path | str | None = None,
    *,
    root: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> RunFolder:
    """Read a run's folder.

    Args:
        folder: Where a training or validation ran under Hydra, e.g. ``logs/irt/train_photos/irt_r_2026-01-31``.
        checkpoint: Another one than ``checkpoints/best.ckpt`` of the folder.
        root: Where the data set is now, the folder of the dataframe, if it has moved since.
        overrides: Other values for keys of the config, ``key=value``, or ``+new=value``. Their paths count from here.

    Raises:
        FileNotFoundError: It is no such folder, or a training has left no checkpoint there yet.
        ValueError: The config has no such key.
    """
    from omegaconf import OmegaConf

    path = Path(folder).absolute()
    if not is_run(path):
        raise FileNotFoundError(_no_run(path, str(folder)))
    told = OmegaConf.load(path / CONFIG)
    known = keys_in(OmegaConf.to_container(told))
    changed = OmegaConf.from_dotlist([_from_here(override, known) for override in overrides])
    config: Any = OmegaConf.to_container(OmegaConf.merge(told, changed), resolve=True, throw_on_missing=False)
    started_in = path
    if (path / ABOUT_HYDRA).is_file():
        about: Any = OmegaConf.load(path / ABOUT_HYDRA)
        started_in = Path(about.hydra.runtime.cwd)
    config = {
        # That one is a name below dataset_root: a file of this name where the run was started is another one.
        key: value if key == "dataframe_name" else with_paths_from(started_in, value)
        for key, value in config.items()
    }
    if config.get("dataset_root"):  # one word may be a folder here
        config["dataset_root"] = str(started_in / with_home(config["dataset_root"]))
    if root is not None:
        config["dataset_root"] = str(Path(root).absolute())
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise FileNotFoundError(f"checkpoint is {str(checkpoint)!r}, expected a file, e.g. {str(path / _BEST)!r}.")
    found = best_checkpoint(path) if checkpoint is None else Path(checkpoint).absolute()
    if found is None and "optimizer" in config:
        raise FileNotFoundError(
            f"The run {str(folder)!r} has no {_BEST}: expected a training that has validated at least once."
        )
    return RunFolder(path, config, found)


def with_paths_from(folder: Path, config: Any) -> Any:
    """The same config, its relative paths made absolute where they lead somewhere as seen from ``folder``."""
    if isinstance(config, Mapping):
        return {key: with_paths_from(folder, value) for key, value in config.items()}
    if isinstance(config, list):
        return [with_paths_from(folder, value) for value in config]
    if isinstance(config, str) and config.startswith("~/"):
        return with_home(config)
    # A bare word, such as a name of weights, is a path only if it has an ending or a folder in it.
    if isinstance(config, str) and (len(Path(config).parts) > 1 or Path(config).suffix) and (folder / config).exists():
        return str(folder / config)
    return config


def best_checkpoint(folder: Path) -> Path | None:
    """That of the best validation of the latest run in the folder.

    Where one was there before, Lightning writes ``best-v1.ckpt``; a run with the key ``resume`` or ``save_iterations``
    has ``best.ckpt``, and gives a number to the other one. So the names tell, whose times are others in a copy; without
    a config, the times do.
    """
    found = {file: _VERSION.fullmatch(file.name) for file in (folder / "checkpoints").glob("best*.ckpt")}
    versions = {int(name[1] or 0): file for file, name in found.items() if name}
    config = folder / CONFIG
    if not config.is_file():
        return max(versions.values(), key=lambda file: file.stat().st_mtime, default=None)
    keeps_its_name = 0 in versions and _RESUMABLE.search(config.read_text(errors="replace"))
    return versions.get(0 if keeps_its_name else max(versions, default=0))


def keys_in(config: Any, prefix: str = "") -> list[str]:
    """All keys of dictionaries inside each other, dots between their parts."""
    found = []
    for key, value in config.items() if isinstance(config, dict) else ():
        found += [f"{prefix}{key}", *keys_in(value, f"{prefix}{key}.")]
    return found


def _from_here(override: str, known: Sequence[str]) -> str:
    key, equals, value = argument_with_home(override).partition("=")
    if not key.startswith("+") and key not in known:
        raise ValueError(unknown_name("key of the run's config:", key, known))
    key = key.lstrip("+")
    is_path = key != "dataframe_name" and value and Path(value).exists()
    return f"{key}{equals}{Path(value).absolute() if is_path else value}"


def _no_run(path: Path, given: str) -> str:
    runs = sorted(path.rglob(CONFIG), key=lambda file: file.stat().st_mtime) if path.is_dir() else []
    what = f"has no {CONFIG}" if path.is_dir() else "does not exist"
    near = f": did you mean its latest run, {str(runs[-1].parents[1])!r}?" if runs else "."
    return f"run is {given!r}, which {what}, expected the folder of a run{near}"
