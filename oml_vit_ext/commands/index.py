"""``oml-vit-ext index``"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oml_vit_ext.commands.option_groups import Access, Cluster, ungrouped
from oml_vit_ext.commands.options import Overrides, SaveEvery, Shard
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:
    import pandas as pd

    from oml_vit_ext.retrieval import ImageIndex


@ungrouped
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
    faiss: Annotated[
        str | None, typer.Option(help="Factory string: HNSW32, IVF4096,PQ48np, ... Default: Flat (exact).")
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(metavar="N", help="Embed the N x N parts of each image too, for small objects. Default: 0."),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Make N indexes that answer as one: shard_0_of_N, ... below --to."),
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
    save_every: SaveEvery = 20_000,
    milvus_index: Annotated[
        str | None, typer.Option(help="Milvus: HNSW, IVF_PQ, ... Default: AUTOINDEX.", show_default=False)
    ] = None,
    milvus_params: Annotated[str, typer.Option(help="Milvus: of that index, e.g. M=32,efConstruction=200")] = "",
    access: Access = Access(),  # noqa: B008
    cluster: Cluster = Cluster(),  # noqa: B008
) -> None:
    """Make an index of a folder of images, or add what is new there.

    Examples:

      oml-vit-ext index photos --to photo_index --model logs/irt/train_photos/RUN

      oml-vit-ext index photos --to photo_index          # again: only what is new

      oml-vit-ext index photos --to shards --shards 8

      oml-vit-ext index photos --to shards/shard_0_of_8 --shard 0/8 --config-name irt/predict_sop checkpoint=best.ckpt

      oml-vit-ext index photos --to photo_index --tokens half --reranker stir/validate_reranker_photos \\
        first_stage_checkpoint=FIRST/checkpoints/best.ckpt checkpoint=PAIRS/checkpoints/best.ckpt

      MILVUS_TOKEN=user:password oml-vit-ext index photos --to https://HOST:19530

      oml-vit-ext index photos --to https://HOST:19530 --engine ray --address auto --workers 8 --gpus-per-worker 1
    """
    from oml_vit_ext.commands.index_places import changing, exists, save_and_tell, saving_as_it_goes
    from oml_vit_ext.commands.models import embedder_of
    from oml_vit_ext.retrieval import SearchIndex, ShardedIndex, list_images, locked
    from oml_vit_ext.retrieval.engines import check_fillable
    from oml_vit_ext.retrieval.index import is_milvus
    from oml_vit_ext.retrieval.index.storage import check_target

    of_folder = {"grid": grid, "shards": shards, "faiss": faiss}
    of_milvus = {"milvus-index": milvus_index, "milvus-params": milvus_params}
    for name, value in (of_folder if is_milvus(to) else of_milvus).items():
        if value:
            where, other = ("Milvus", "an index in a folder") if is_milvus(to) else ("a folder", "Milvus")
            raise ValueError(f"--{name} is {value}, expected none in {where}: it is for {other}.")
    if (tokens is None) != (reranker is None):
        raise ValueError("--tokens and --reranker belong together: in which precision, and of which re-ranker.")
    if reranker and config_name and overrides:
        raise ValueError(
            f"--config-name {config_name} and --reranker {reranker} both take KEY=VALUE: make the index first, then "
            f"call index again with --reranker and without --config-name."
        )
    store = None
    if reranker:
        of_model = reranker, overrides or [], tokens or "", tokens_mb, access.device
        store = _token_store(to, root or images, *of_model)
    of_embedder = [] if reranker else overrides or []

    def fill(made: Any, embedder: Any) -> None:
        embedder = cluster.with_its_machines(embedder)
        if predictions:
            report = _add_predictions(made, predictions, embedder, shard)
        else:
            found = shard_of(list_images(images, made.root), shard)
            if not is_milvus(to):
                n_images = _fewest({*made.images.key, *found.key}, max(1, _n_shards(made)))
                check_fillable(embedder.fingerprint.width, made.index, n_images * (1 + made.grid**2))
            report = made.add(found, embedder, **saving_as_it_goes(made, to, save_every))
        save_and_tell(made, to, report)
        if store is not None:
            print(f"{store.sync(made, num_workers=access.num_workers, verbose=True)}\n{store.folder}")
        n_gone = sum(not (made.root / path).exists() for path in made.images.path)
        if n_gone:
            print(
                f"{counted(n_gone, 'image of the index is', 'images of the index are')} gone: oml-vit-ext sync "
                f"--index {to}"
            )

    if exists(to, access.collection):
        with changing(to, **access.opening) as there:
            asked = {"grid": grid, "shards": shards, "faiss": faiss}
            _check_as_made(there, **asked, milvus_index=milvus_index, milvus_params=milvus_params or None)
            _check_root(there, root, to)
            if model or config_name or of_embedder:  # the same model, or it is told
                fill(there, embedder_of(model, config_name, of_embedder, **access.embedding))
            else:
                fill(there, access.embedder_of(there))
        return
    if not images.is_dir():
        what = "is a file" if Path(images).is_file() else "does not exist"
        raise FileNotFoundError(f"The image folder {str(images)!r} {what}, expected a folder of images.")
    if not is_milvus(to) and not shards:
        check_target(Path(to).absolute(), None, None)  # before the work
    embedder = embedder_of(model, config_name, of_embedder, **access.embedding)
    if is_milvus(to):
        kind = milvus_index or "AUTOINDEX"
        new = _new_collection(to, root or images, embedder, access.collection, kind, milvus_params)
        with contextlib.closing(new):
            fill(new, embedder)
        return
    with locked(Path(to).absolute()):
        base, known = root or images, embedder.fingerprint
        how: dict[str, Any] = {"index": faiss or "Flat", "config": embedder.config, "grid": grid or 0}
        fill(ShardedIndex.create(base, known, shards, **how) if shards else SearchIndex(base, known, **how), embedder)


def _check_as_made(index: ImageIndex, **asked: int | str | None) -> None:
    """What was said when the index was made cannot be said otherwise later."""
    made: dict[str, Any] = {"grid": index.grid, "shards": _n_shards(index), "faiss": getattr(index, "index", None)}
    for name, value in asked.items():
        option = name.replace("_", "-")
        if value is not None and name not in made:
            raise ValueError(f"--{option} is {value}, but the index is there already: expected none.")
        if value is not None and made[name] != value:
            raise ValueError(
                f"--{option} is {value}, but the index has {name} {made[name]}: expected the same, or none."
            )


def _check_root(index: ImageIndex, root: Path | None, place: str) -> None:
    from oml_vit_ext.retrieval.index.image_list import folder_below_root

    if root is not None and folder_below_root(root, index.root) != "":
        raise ValueError(
            f"--root is {root}, but the index has the root {index.root}: expected the same, or none. If the images "
            f"have moved: oml-vit-ext sync --index {place} --root {root}"
        )


def _n_shards(index: ImageIndex) -> int:
    """0 for an index that is in one place."""
    return len(getattr(index, "shards", []))


def _fewest(keys: Iterable[str], n_shards: int) -> int:
    """How many images the smallest shard will have: each is trained on its own."""
    from oml_vit_ext.retrieval.index import shard_number

    return min(Counter(shard_number(key, n_shards) for key in keys).values(), default=0)


def shard_of(images: pd.DataFrame, shard: str) -> pd.DataFrame:
    """Part i of n (``i/n``, from 0): by the name, so that an image stays in its shard when others come.

    Raises:
        ValueError: ``shard`` is not of that form.
    """
    from oml_vit_ext.retrieval.index import shard_number

    number, _, n_shards = shard.partition("/")
    if not (number.isdigit() and n_shards.isdigit() and int(number) < int(n_shards)):
        raise ValueError(f"--shard is {shard!r}, expected i/n with i below n, e.g. 0/8.")
    mine = [shard_number(key, int(n_shards)) == int(number) for key in images.key]
    return images[mine].reset_index(drop=True)


def _add_predictions(made: Any, file: Path, embedder: Any, shard: str) -> Any:
    """Add the embeddings that ``predict`` wrote, perhaps on several nodes."""
    import json

    import numpy as np
    import pandas as pd

    from oml_vit_ext.retrieval import list_images

    try:
        predicted: dict[str, list[float]] = json.loads(file.read_text())
        embeddings = np.array(list(predicted.values()), dtype=np.float32)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"--predictions {file} cannot be read ({type(error).__name__}: {error}), expected what predict wrote: a "
            f"list of numbers, as many each, for each path."
        ) from error
    listed = list_images(pd.DataFrame({"path": list(predicted)}), made.root)
    mine = shard_of(listed, shard)
    return made.add_embeddings(mine, embeddings[listed.key.isin(mine.key).to_numpy()], embedder.fingerprint)


def _token_store(
    to: str, root: Path, reranker: str, overrides: list[str], precision: str, max_mb: float, device: str | None
) -> Any:
    import torch

    from oml_vit_ext.commands.kept_tokens import token_folder
    from oml_vit_ext.commands.models import reranker_of
    from oml_vit_ext.reranking import TokenStore

    folder = token_folder(to)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    postprocessor, transform = reranker_of(reranker, overrides, 2, device, root)
    return TokenStore(folder, postprocessor.model, transform, precision=precision, max_mb=max_mb)


def _new_collection(place: str, root: Path, embedder: Any, collection: str, kind: str, params: str) -> Any:
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
    )
