"""``oml-vit-ext check``"""

from __future__ import annotations

from typing import Annotated

import typer

from oml_vit_ext.commands.options import Config, Overrides
from oml_vit_ext.common.messages import counted


def check(
    config: Config,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--show", help="Print the composed config as well.")] = False,
) -> None:
    """Look for mistakes in a config, without starting anything.

    Names and arguments of all that it builds, files, the dataframe, batches, sizes, packages and expected memory. The
    exit code is 1 if there are errors, 0 if there are warnings only. Every training does the same before it starts.

    Examples:

      oml-vit-ext check irt/train_photos dataset_root=photos

      oml-vit-ext check my.yaml --show
    """
    import typer
    from omegaconf import OmegaConf

    from oml_vit_ext.commands.errors import WRONG_INPUT
    from oml_vit_ext.commands.hydra_runs import composed
    from oml_vit_ext.commands.launching import chosen
    from oml_vit_ext.commands.mistakes import find_mistakes, told
    from oml_vit_ext.commands.wrong_machine import expected_memory

    given = list(overrides or [])
    cfg = composed(config, [*chosen(config, given), *given])
    if show:
        print(OmegaConf.to_yaml(cfg))
    found = find_mistakes(cfg)
    errors = sum(mistake.is_error for mistake in found)
    if found:
        print(told(found))
    if memory := expected_memory(cfg):
        print(memory)
    print(f"{counted(errors, 'error')}, {counted(len(found) - errors, 'warning')}.")
    if errors:
        raise typer.Exit(WRONG_INPUT)
