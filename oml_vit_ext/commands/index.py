"""``oml-vit-ext index``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oml_vit_ext.commands.options import (
    BatchSize,
    Collection,
    Device,
    NumWorkers,
    Overrides,
    Shard,
    TrustFaissFile,
    TrustWeights,
)

if TYPE_CHECKING:
    import pandas as pd


def index(
    images: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    overrides: Overrides = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="Folder of the index, or Milvus: a file.db, or the URL of a server.", show_default=False
        ),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of a training: its best model embeds the images.")
    ] = None,
    config_name: Annotated[
        str | None,
        typer.Option(
            "--config-name", help="Instead: a config of prediction, e.g. irt/predict_sop. Default: the model of pip."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that paths are relative to. Default: the folder of images.")
    ] = None,
    faiss: Annotated[str, typer.Option(help="Factory string: Flat (exact), HNSW32, IVF4096,PQ48np, ...")] = "Flat",
    grid: Annotated[
        int | None,
        typer.Option(metavar="N", help="Embed the N x N parts of each image too, for small objects. Default: 0."),
    ] = None,
    shard: Shard = "0/1",
    predictions: Annotated[
        Path | None, typer.Option(help="Take the embeddings from what predict wrote, instead of computing them.")
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG", help="With --tokens: its config, e.g. stir/validate_reranker_sop; takes KEY=VALUE then."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Also keep what the re-ranker makes of each image, beside the index: half, or int8 (smaller)."
        ),
    ] = None,
    tokens_mb: Annotated[float, typer.Option("--tokens-mb", help="The most that these may take, in MB.")] = 10_000,
    save_every: Annotated[int, typer.Option(help="Images between saves.")] = 20_000,
    collection: Collection = "images",
    milvus_index: Annotated[str, typer.Option(help="Milvus: AUTOINDEX, HNSW, IVF_PQ, ...")] = "AUTOINDEX",
    milvus_params: Annotated[str, typer.Option(help="Milvus: of that index, e.g. M=32,efConstruction=200")] = "",
    engine: Annotated[
        str, typer.Option(help="local, or ray: the machines of a Ray cluster embed the images.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster: ray://HEAD:10001, or auto. Default: one on this machine alone."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Ray: how many models at once.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(help="Ray: reserved for each; 0: they run on CPUs.")] = 0.0,
    device: Device = None,
    batch_size: BatchSize = 64,
    num_workers: NumWorkers = 0,
    trust_weights: TrustWeights = False,
    trust_faiss_file: TrustFaissFile = None,
) -> None:
    """Make an index of a folder of images, or add what is new there.

    Examples:

      oml-vit-ext index photos --to photo_index --model logs/irt/train_photos/RUN

      oml-vit-ext index photos --to photo_index          # again: only what is new

      oml-vit-ext index photos --to shard_0 --shard 0/8 --config-name irt/predict_sop checkpoint=best.ckpt

      oml-vit-ext index photos --to photo_index --tokens half --reranker stir/validate_reranker_photos \\
        first_stage_checkpoint=FIRST/checkpoints/best.ckpt checkpoint=PAIRS/checkpoints/best.ckpt

      MILVUS_TOKEN=user:password oml-vit-ext index photos --to https://HOST:19530

      oml-vit-ext index photos --to https://HOST:19530 --engine ray --address auto --workers 8 --gpus-per-worker 1
    """
    from oml_vit_ext.commands.index_places import changing, described, exists, is_milvus, save
    from oml_vit_ext.commands.models import embedder_of, on_cluster
    from oml_vit_ext.retrieval import AddReport, SearchIndex, list_images, locked
    from oml_vit_ext.retrieval.engines import check_fillable

    settings: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "device": device}

    if engine not in ("local", "ray"):
        raise ValueError(f"--engine is {engine!r}, expected 'local' or 'ray'.")
    if (tokens is None) != (reranker is None):
        raise ValueError("--tokens and --reranker belong together: in which precision, and of which re-ranker.")
    if reranker and config_name and overrides:
        raise ValueError(
            f"--config-name {config_name} and --reranker {reranker} both take KEY=VALUE: make the index first, then "
            f"call index again with --reranker and without --config-name."
        )
    store = _token_store(to, reranker, overrides or [], tokens or "", tokens_mb, device) if reranker else None
    of_embedder = [] if reranker else overrides or []

    def fill(made: Any, embedder: Any) -> None:
        if engine == "ray":
            embedder = on_cluster(embedder, address, workers, gpus_per_worker)
        found = shard_of(list_images(images, made.root), shard)
        if predictions:
            report = _add_predictions(made, predictions, embedder)
        else:
            if not is_milvus(to):
                n_images = len(set(made.images.key) | set(found.key))
                check_fillable(embedder.fingerprint.width, made.index, n_images * (1 + made.grid**2))
            report = AddReport()
            for start in range(0, len(found), save_every):
                report += made.add(found[start : start + save_every], embedder, verbose=True)
                if start + save_every < len(found):
                    save(made, to, finish=False)
        save(made, to)
        print(f"{report}\n{described(made, to)}")
        if store is not None:
            print(f"{store.sync(made, num_workers=num_workers, verbose=True)}\n{store.folder}")
        n_gone = sum(not (made.root / path).exists() for path in made.images.path)
        if n_gone:
            print(f"{n_gone} images of the index are gone: oml-vit-ext sync --index {to}")

    if exists(to, collection):
        with changing(to, collection=collection, trust_faiss_file=trust_faiss_file) as made:
            if grid is not None and not is_milvus(to) and grid != made.grid:
                raise ValueError(f"--grid is {grid}, but the index has grid {made.grid}: expected the same, or none.")
            fill(made, made.embedder(trust_weights=trust_weights, **settings))
        return
    if not images.is_dir():
        raise FileNotFoundError(f"The image folder {str(images)!r} does not exist, or is not a folder.")
    if grid and is_milvus(to):
        raise ValueError(f"--grid is {grid}, expected none in Milvus: grids are for an index in a folder.")
    embedder = embedder_of(model, config_name, of_embedder, **settings)
    if is_milvus(to):
        made = _new_collection(to, root or images, embedder, collection, milvus_index, milvus_params)
        try:
            fill(made, embedder)
        finally:
            made.close()
        return
    with locked(Path(to).absolute()):
        fill(SearchIndex(root or images, embedder.fingerprint, faiss, embedder.config, grid=grid or 0), embedder)


def shard_of(images: pd.DataFrame, shard: str) -> pd.DataFrame:
    """Part i of n (``i/n``, from 0): by the name, so that an image stays in its shard when others come.

    Raises:
        ValueError: ``shard`` is not of that form.
    """
    import os
    import zlib

    number, _, n_shards = shard.partition("/")
    if not (number.isdigit() and n_shards.isdigit() and int(number) < int(n_shards)):
        raise ValueError(f"--shard is {shard!r}, expected i/n with i below n, e.g. 0/8.")
    mine = [zlib.crc32(os.fsencode(key)) % int(n_shards) == int(number) for key in images.key]
    return images[mine].reset_index(drop=True)


def _add_predictions(made: Any, file: Path, embedder: Any) -> Any:
    """Add the embeddings that ``predict`` wrote, perhaps on several nodes."""
    import json

    import numpy as np
    import pandas as pd

    predicted: dict[str, list[float]] = json.loads(file.read_text())
    embeddings = np.array(list(predicted.values()), dtype=np.float32)
    return made.add_embeddings(pd.DataFrame({"path": list(predicted)}), embeddings, embedder.fingerprint)


def _token_store(
    to: str, reranker: str, overrides: list[str], precision: str, max_mb: float, device: str | None
) -> Any:
    import torch

    from oml_vit_ext.commands.kept_tokens import token_folder
    from oml_vit_ext.commands.models import reranker_of
    from oml_vit_ext.reranking import TokenStore

    folder = token_folder(to)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    postprocessor, transform = reranker_of(reranker, overrides, 2, device)
    return TokenStore(folder, postprocessor.model, transform, precision=precision, max_mb=max_mb)


def _new_collection(place: str, root: Path, embedder: Any, collection: str, kind: str, params: str) -> Any:
    import os

    from oml_vit_ext.commands.index_places import TOKEN
    from oml_vit_ext.retrieval import MilvusIndex
    from oml_vit_ext.retrieval.search_params import parse_search_params

    return MilvusIndex.create(
        place,
        root,
        embedder.fingerprint,
        collection=collection,
        config=embedder.config,
        index=kind,
        index_params=parse_search_params(params),
        token=os.environ.get(TOKEN, ""),
    )
