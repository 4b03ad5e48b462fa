"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="Name of a config of this package, e.g. irt/train_photos, or a YAML file of yours.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Values for keys of the config, as Hydra takes them."),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--to", help="Folder of the run. Default: a new one below logs/, as the config says."),
]
Multirun = Annotated[
    bool, typer.Option("--multirun", "-m", help="One run for each combination of listed values: seed=1,2,3")
]
