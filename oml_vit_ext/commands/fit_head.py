"""``oml-vit-ext fit-head``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oml_vit_ext.common.messages import counted


def fit_head(
    config: Annotated[str, typer.Argument(help="a config that validates an extractor: irt/validate_photos")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to it: dataset_root=DIR checkpoint=FILE")
    ] = None,
    to: Annotated[Path, typer.Option(help="the file of the head")] = Path("head.safetensors"),
    criterion: Annotated[str, typer.Option(help="a config of the group criterion, or {name: ..., args: ...}")] = "irt",
    dims: Annotated[str, typer.Option(help="widths of the layers: 128 is linear, 512,128 an MLP")] = "128",
    steps: Annotated[int, typer.Option(help="batches")] = 500,
    lr: Annotated[float, typer.Option(help="learning rate")] = 1e-3,
    seed: Annotated[int, typer.Option(help="of the random numbers")] = 0,
    embeddings: Annotated[
        Path | None, typer.Option(help="folder that keeps the embeddings for the next call; default: beside the head")
    ] = None,
) -> None:
    """Train a linear layer or a small MLP on the embeddings of a data set's training images.

    The images are embedded once: another call, with another loss for instance, takes seconds. They are embedded again
    where they, the model or its transforms have changed.

    Example: oml-vit-ext fit-head irt/validate_photos irt/variant=irt_o --to head.safetensors
    """
    from oml.registry.losses import get_criterion_by_cfg

    from oml_vit_ext.extractors.head import save_head
    from oml_vit_ext.optimizers.head_fitting import fit_head as fit

    cfg = _composed(config, overrides or [])
    widths = _widths(dims)
    index = _embedded(cfg, embeddings or to.with_suffix(".embeddings"))
    head = fit(
        index.embeddings,
        index.images.label.to_numpy(),
        get_criterion_by_cfg(_criterion(criterion), label2category=None),  # type: ignore[arg-type]
        widths,
        steps=steps,
        lr=lr,
        seed=seed,
        verbose=True,
    )
    save_head(head, to, extractor_hash=index.fingerprint.weights)
    print(
        f"Head {index.fingerprint.width} -> {' -> '.join(map(str, widths))}, fitted on "
        f"{counted(len(index), 'image')}, in {to}"
    )


def _composed(config: str | None, overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_module

    import oml_vit_ext  # noqa: F401  (registers the names)

    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        return compose(config, overrides)


def _widths(dims: str) -> list[int]:
    if not all(part.strip().isdigit() for part in dims.split(",")):
        raise ValueError(f"--dims is {dims!r}, expected whole numbers with commas between them, e.g. 128 or 512,128.")
    return [int(part) for part in dims.split(",")]


def _criterion(text: str) -> dict[str, Any]:
    from oml.utils.misc import dictconfig_to_dict

    is_written_out = text.lstrip().startswith("{")
    cfg = _composed(None, [f"+criterion={text}"]) if is_written_out else _composed(f"criterion/{text}", [])
    found: dict[str, Any] = dictconfig_to_dict(cfg.criterion)
    if "name" not in found:
        raise ValueError(
            f"--criterion is {text!r}, expected a config of the group criterion, or {{name: ..., args: ...}}."
        )
    return {"name": found["name"], "args": found.get("args") or {}}


def _embedded(cfg: Any, folder: Path) -> Any:
    """The index of the training images in ``folder``, made or brought up to date."""
    from oml.utils.misc import dictconfig_to_dict

    from oml_vit_ext.datasets.frame import read_frame
    from oml_vit_ext.retrieval import Embedder, SearchIndex

    root = Path(cfg.dataset_root).absolute()
    df = read_frame(root / cfg.dataframe_name)
    rows = df[df.split == "train"].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"{cfg.dataframe_name} in {cfg.dataset_root} has no training rows, on which a head is fitted.")
    extractor = cfg.extractor.args.extractor if cfg.extractor.name == "extractor_with_head" else cfg.extractor
    parts = map(dictconfig_to_dict, (extractor, cfg.transforms_val))
    embedder = Embedder.from_config(*parts, batch_size=cfg.bs_val, num_workers=cfg.num_workers)
    index = SearchIndex(root, embedder.fingerprint, config=embedder.config)
    if (folder / "manifest.json").is_file():
        index = SearchIndex.load(folder, root=root)
        try:
            index.check_model(embedder.fingerprint, "this config")
        except ValueError as error:
            raise ValueError(f"{error} Or name another folder than {str(folder)!r} with --embeddings.") from error
        others = index.images.path[index.images.path.isin(df.path[df.split != "train"].map(str))]
        if len(others):  # they would leave it
            raise ValueError(
                f"{str(folder)!r} is an index of other images, too ({others.iloc[0]!r}), expected one of those for "
                f"training alone: name another folder with --embeddings."
            )
    print(index.sync(rows, embedder, verbose=True))
    index.save(folder)
    return index
