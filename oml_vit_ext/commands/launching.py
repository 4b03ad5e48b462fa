"""From what was typed to a run: settings are chosen, mistakes looked for, and only then a folder is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path
from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.commands.choices import Machine, choose, keys_of, table
from oml_vit_ext.commands.errors import WRONG_INPUT
from oml_vit_ext.commands.frame_facts import FrameFacts, read_frame
from oml_vit_ext.commands.hydra_runs import composed, is_first_process, run


def launch(
    config: str,
    overrides: Sequence[str] | None,
    task: Callable[[DictConfig], Any],
    *,
    to: Path | None = None,
    multirun: bool = False,
    check: bool = True,
) -> None:
    """Run ``task`` with a config in the folder of the run.

    Args:
        config, overrides: As for ``hydra_runs.composed``.
        task: Gets the config.
        to: Folder of the run; ``None``: as the config says.
        multirun: One run for each combination of the values that overrides list; then nothing is chosen or checked.
        check: Look for mistakes first.

    Raises:
        typer.Exit: There are mistakes; they are printed.
    """
    given = list(overrides or [])
    if to is not None:
        given.append(f"hydra.run.dir={_quoted(str(to))}")
    if not multirun:
        given = [*chosen(config, given), *given]
        if check and is_first_process():
            stop_on_mistakes(composed(config, _without_hydra(given)))
    run(config, given, task, multirun=multirun)


def chosen(config: str, overrides: Sequence[str], *, told: bool = True) -> list[str]:
    """Overrides for what ``chosen_for_data`` of the config lists, where the data set is another; printed if told."""
    own = _without_hydra(overrides)
    cfg = composed(config, own)
    given = keys_of(own)
    if not cfg.get("chosen_for_data") or "dataset_root" not in given:
        return []
    try:
        facts = FrameFacts.of(read_frame(to_absolute(str(cfg.dataset_root)), cfg.dataframe_name))
    except (FileNotFoundError, ValueError):  # told among the mistakes
        return []
    machine = Machine.here()
    choices = choose(cfg, facts, machine, given)
    if told and is_first_process():
        print(f"Chosen from {facts}, and this machine ({machine}); each can be set:\n{table(choices)}")
    return [choice.override for choice in choices]


def stop_on_mistakes(cfg: DictConfig) -> None:
    """Print what is wrong with a config, if anything is.

    Raises:
        typer.Exit: There are errors, not only warnings.
    """
    from oml_vit_ext.commands.mistakes import find_mistakes, told

    found = find_mistakes(cfg)
    if found:
        print(told(found), flush=True)
    if any(mistake.is_error for mistake in found):
        raise typer.Exit(WRONG_INPUT)


def to_absolute(path: str) -> str:
    """As Hydra's ``to_absolute_path``, also where there is no run."""
    return to_absolute_path(path) if HydraConfig.initialized() else os.path.abspath(path)


def as_typed(path: Path | str) -> str:
    """A path as seen from where the command was started."""
    start = get_original_cwd() if HydraConfig.initialized() else os.getcwd()
    return os.path.relpath(path, start)


def plain(part: Any) -> Any:
    """A part of a config as dictionaries and lists."""
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def _without_hydra(overrides: Sequence[str]) -> list[str]:
    """Hydra's own settings are no part of the config that a run gets."""
    return [o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
