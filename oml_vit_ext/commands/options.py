"""What several commands take."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class EmbedsOn(str, Enum):
    """Where images are embedded."""

    LOCAL = "local"
    RAY = "ray"


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


def _usable(device: str | None) -> str | None:
    """The device, once it is known to be there."""
    if device in (None, "cpu"):  # torch is imported for the others alone
        return device
    import torch

    try:
        torch.empty(1, device=device)
    except Exception as error:  # what is wrong with a device, torch says in many ways
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise typer.BadParameter(f"device is {device!r}, expected one that is here: {', '.join(there)}.") from error
    return device


Device = Annotated[str | None, typer.Option(help="cpu or cuda. Default: the GPU if there is one.", callback=_usable)]
BatchSize = Annotated[int, typer.Option(help="Images at once.")]
NumWorkers = Annotated[int, typer.Option(help="Processes that read images.")]
TrustWeights = Annotated[
    bool, typer.Option("--trust-weights", help="Read the index's files of weights even if they can run code.")
]
TrustFaissFile = Annotated[
    bool | None,
    typer.Option(
        "--trust-faiss-file/--no-trust-faiss-file",
        help="Read the index's faiss file, whoever made it. Default: if it bears your mark.",
        show_default=False,
    ),
]
Shard = Annotated[str, typer.Option(help="i/n: only part i of n of the images. Default: all.", show_default=False)]
Collection = Annotated[str, typer.Option(help="Milvus: name of the collection.")]
MovedRoot = Annotated[Path | None, typer.Option("--root", help="Where the images of the index are now, if moved.")]
SearchParams = Annotated[str, typer.Option(help="Of an approximate index: nprobe=16, efSearch=64; Milvus: ef=64.")]
SaveEvery = Annotated[int, typer.Option(min=1, help="Images between saves.")]
Engine = Annotated[EmbedsOn, typer.Option(help="ray: the machines of a Ray cluster embed the images.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: ray://HEAD:10001, or auto. Default: one on this machine alone."),
]
Workers = Annotated[int, typer.Option(min=1, help="Ray: how many models at once.")]
GpusPerWorker = Annotated[float, typer.Option(min=0, help="Ray: reserved for each; 0: they run on CPUs.")]
