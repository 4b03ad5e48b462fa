"""How commands compose a config with Hydra, and run something with it in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.common.home import with_home

_PACKAGE = "oml_vit_ext.configs"


def composed(config: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config with overrides, as Hydra composes it.

    Args:
        config: Name of one of this package's configs, e.g. ``irt/train_photos``, or a YAML file of one's own, whose
            ``defaults`` may name them.
        overrides: As Hydra takes them: ``key=value``, ``+new=value``, ``~key``.

    Raises:
        ValueError: There is no such config or key; the sentence names the nearest.
        HydraException: An override cannot be read.
    """
    from hydra import compose, initialize_config_dir, initialize_config_module
    from hydra.errors import HydraException

    from oml_vit_ext.commands.absolute_paths import with_homes
    from oml_vit_ext.common.messages import unknown_name
    from oml_vit_ext.runs.run_folder import keys_in

    folder, name = located(config)
    here = (
        initialize_config_module(_PACKAGE, version_base=None)
        if folder is None
        else initialize_config_dir(str(folder), version_base=None)
    )
    with here:
        try:
            return with_homes(compose(name, list(overrides)))
        except HydraException as error:
            wrong = re.match(r"Could not override '([^']+)'", str(error))
            if wrong is None:
                raise
            keys = keys_in(OmegaConf.to_container(compose(name)))
            raise ValueError(unknown_name(f"key of {config}:", wrong[1], keys)) from error


def located(config: str) -> tuple[Path | None, str]:
    """The folder of a YAML file and its name there, or ``None`` and the name of one of this package's configs.

    Raises:
        ValueError: There is neither such a file nor such a config; the sentence names the nearest.
    """
    from oml_vit_ext.common.messages import unknown_name

    file = Path(with_home(config)).absolute()
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return file.parent, file.stem
    name = config.removesuffix(".yaml")
    if name not in names():
        raise ValueError(unknown_name("config (neither a YAML file nor one of this package):", config, names()))
    return None, name


def names() -> list[str]:
    """The configs of this package that a run can be started with."""
    import oml_vit_ext.configs as package

    folder = Path(str(package.__file__)).parent
    found = (path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.yaml")))
    return [name for name in found if name.count("/") == 1 and name.split("/")[0] in _FAMILIES]


_FAMILIES = ("dtop", "irt", "revisited", "stir", "study")


def run(
    config: str, overrides: Sequence[str], task: Callable[[DictConfig], Any], *, multirun: bool = False
) -> list[Any]:
    """What ``task`` returns for the composed config, called in the folder of the run, which Hydra makes.

    Args:
        config, overrides: As for :func:`composed`; those of Hydra itself (``hydra.run.dir=FOLDER``) are known as well.
        task: Gets the config.
        multirun: One run for each combination of the values that overrides list: ``seed=1,2,3``.
    """
    import hydra
    from oml.const import HYDRA_BEHAVIOUR

    from oml_vit_ext.commands.absolute_paths import with_homes

    folder, name = located(config)
    results: list[Any] = []
    failed: list[Exception] = []
    before, arguments = sys.argv, ["--multirun"] if multirun else []

    def call(cfg: DictConfig) -> None:
        # Lightning starts the processes of several devices with these arguments, which must be ours, not Hydra's.
        sys.argv = before
        try:
            if not failed:
                results.append(task(with_homes(cfg)))
        except Exception as error:  # Hydra would print a line of its own before it lets it through
            failed.append(error)

    call.__module__ = __name__
    main = hydra.main(
        config_path=None if folder is None else str(folder), config_name=name, version_base=HYDRA_BEHAVIOUR
    )(call)
    with _raising(), _arguments([before[0], *arguments, *overrides]):
        main()
    if failed:
        raise failed[0]
    return results


def is_first_process() -> bool:
    """Whether this is not one of the further processes of a run on several devices."""
    return os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) in ("", "0")


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    """Hydra lets errors through instead of printing them and leaving."""
    given = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = given


@contextlib.contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before
