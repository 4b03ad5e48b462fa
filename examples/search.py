"""An index of your images: make it, add to it, ask it with an image.

    python examples/search.py index photos --to photo_index           # the bundled model; again: only what is new
    python examples/search.py query cat.jpg --index photo_index -k 5  # a table, and a picture of the five nearest

    python examples/search.py sync photos --index photo_index         # as the folder is now: what is gone leaves
    python examples/search.py remove cat/1.jpg --index photo_index    # by name, as a query prints it

    # your own model, an approximate index for millions of images, one of 8 shards
    python examples/search.py index photos --to shard_0 --config-name irt/predict_sop checkpoint=best.ckpt \\
        --faiss IVF4096,PQ48np --shard 0/8 --device cuda --num-workers 16
    # embeddings that predict_extractor.py has written
    python examples/search.py index photos --to photo_index --predictions predictions.json
    # over all shards, the first 20 hits re-ranked by STIR
    python examples/search.py query cat.jpg --index shard_* --search-params nprobe=16 --rerank 20 \\
        --reranker stir/validate_reranker_sop first_stage_checkpoint=first.ckpt checkpoint=stir.ckpt

Further arguments are Hydra overrides of the config, as for the other examples.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.pictures.hits import draw_hits
from oml_vit_ext.retrieval import (
    AddReport,
    Embedder,
    Hit,
    SearchIndex,
    list_images,
    locked,
    rerank_hits,
    search_shards,
)
from oml_vit_ext.retrieval.engines import check_fillable

ROOT = Path(__file__).parent.parent
BUNDLED = ["irt/variant=irt_o", f"pretrained={ROOT}/examples/demo_weights/vit_tiny_emoji.safetensors"]


def make_index(args: argparse.Namespace) -> None:
    """Make an index of a folder, or add to it what is new there."""
    folder = args.to.absolute()
    with locked(folder):
        if (folder / "manifest.json").is_file():
            index = SearchIndex.load(folder)
            embedder = index.embedder(trust_weights=args.trust_weights, **model_settings(args))
        else:
            embedder = embedder_of(args)
            index = SearchIndex(args.root or args.images, embedder.fingerprint, args.faiss, embedder.config)
        images = shard_of(list_images(args.images, index.root), args.shard)
        if not args.predictions:
            check_fillable(embedder.fingerprint.width, index.index, len(set(index.images.key) | set(images.key)))
        if args.predictions:
            report = add_predictions(index, args.predictions, embedder)
        else:
            report = add_in_parts(index, images, embedder, args.save_every, folder)
        index.save(folder)
    print(f"{report}\n{folder}: {len(index)} images, index {index.index}")
    n_gone = sum(not (index.root / path).exists() for path in index.images.path)
    if n_gone:
        print(f"{n_gone} images of the index are gone: python examples/search.py sync --index {args.to}")


def sync_index(args: argparse.Namespace) -> None:
    """Make an index hold exactly what its folder of images holds now."""
    folder = args.index.absolute()
    with locked(folder):
        index = SearchIndex.load(folder, root=args.root)
        source = args.images or index.root
        embedder = index.embedder(trust_weights=args.trust_weights, **model_settings(args))
        shard = None if args.shard == "0/1" else shard_of(list_images(source, index.root), args.shard)
        report = index.sync(source if shard is None else shard, embedder, verbose=True)
        index.save(folder)
    print(f"{report}\n{folder}: {len(index)} images, index {index.index}")


def remove_images(args: argparse.Namespace) -> None:
    """Take images out of an index by name; the files stay."""
    folder = args.index.absolute()
    with locked(folder):
        index = SearchIndex.load(folder)
        n_removed = index.remove(args.images)
        index.save(folder)
    print(f"{n_removed} removed\n{folder}: {len(index)} images, index {index.index}")


def add_in_parts(index: SearchIndex, images: pd.DataFrame, embedder: Embedder, size: int, folder: Path) -> AddReport:
    """Add, and save after every ``size`` images, so that an interrupted run goes on where it was."""
    report = AddReport()
    for start in range(0, len(images), size):
        report += index.add(images[start : start + size], embedder, verbose=True)
        if start + size < len(images):
            index.save(folder, finish=False)
    return report


def add_predictions(index: SearchIndex, file: Path, embedder: Embedder) -> AddReport:
    """Add the embeddings that ``predict_extractor.py`` wrote, perhaps on several nodes."""
    predicted: dict[str, list[float]] = json.loads(file.read_text())
    embeddings = np.array(list(predicted.values()), dtype=np.float32)
    return index.add_embeddings(pd.DataFrame({"path": list(predicted)}), embeddings, embedder.fingerprint)


def shard_of(images: pd.DataFrame, shard: str) -> pd.DataFrame:
    """Part i of n (``i/n``, from 0): by the name, so that an image stays in its shard when others come."""
    number, _, n_shards = shard.partition("/")
    if not (number.isdigit() and n_shards.isdigit() and int(number) < int(n_shards)):
        raise SystemExit(f"--shard is {shard!r}, expected i/n with i below n, e.g. 0/8.")
    mine = [zlib.crc32(os.fsencode(key)) % int(n_shards) == int(number) for key in images.key]
    return images[mine].reset_index(drop=True)


def answer(args: argparse.Namespace) -> None:
    """Print and draw the nearest images of the queries."""
    if args.rerank == 1 or args.rerank < 0:
        raise SystemExit(f"--rerank is {args.rerank}, expected at least 2 hits, or 0 for none.")
    if args.rerank and not args.reranker:
        raise SystemExit("--rerank needs --reranker, a config with a postprocessor: e.g. stir/validate_reranker_sop.")
    shards = [SearchIndex.load(folder, root=args.root, mmap=args.mmap) for folder in args.index]
    embedder = shards[0].embedder(trust_weights=args.trust_weights, **model_settings(args))
    for shard in shards:
        shard.check_model(embedder.fingerprint, "the query")
    root = shards[0].root
    n_searched = max(args.k, args.rerank)
    embeddings = embedder.embed_all(args.images)
    found = search_shards(shards, embeddings, n_searched, search_params=args.search_params)
    if args.rerank:
        reranker, transform = reranker_of(args, embedder.device)
        found = [rerank_hits(q, hits, root, reranker, transform) for q, hits in zip(args.images, found, strict=True)]
    found = [hits[: args.k] for hits in found]
    for query, hits in zip(args.images, found, strict=True):
        print(f"\n{query}\n{table(hits)}")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    draw_hits(args.images, found, root, args.picture)
    print(f"\n{args.picture}")


def table(hits: Sequence[Hit]) -> str:
    lines = [f"{'':>4} {'distance':>9}  image"]
    for rank, hit in enumerate(hits, start=1):
        extra = "".join(f"  [{value}]" for value in (hit.label, hit.box) if value)
        lines.append(f"{rank:>4} {hit.distance:>9.4f}  {hit.path}{extra}")
    return "\n".join(lines)


def embedder_of(args: argparse.Namespace) -> Embedder:
    cfg = config(args.config_name or "irt/predict_demo", [*([] if args.config_name else BUNDLED), *args.overrides])
    return Embedder.from_config(container(cfg.extractor), container(cfg.transforms_predict), **model_settings(args))


def reranker_of(args: argparse.Namespace, device: torch.device) -> tuple[Any, Any]:
    """The postprocessor of a config, looking at ``--rerank`` hits, and the transforms of its images."""
    cfg = config(args.reranker, args.overrides)
    postprocessor = container(cfg.postprocessor)
    settings = {"top_n": args.rerank, "num_workers": 0, "verbose": False}
    reranker = get_postprocessor_by_cfg({**postprocessor, "args": {**postprocessor["args"], **settings}})
    reranker.model.to(device)
    return reranker, get_transforms_by_cfg(container(cfg.transforms_val))


def config(name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        return with_absolute_paths(compose(name, overrides))


def container(part: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(part, resolve=True)  # type: ignore[return-value]


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"batch_size": args.batch_size, "num_workers": args.num_workers, "device": args.device}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="make an index of a folder, or add what is new there")
    index.add_argument("images", type=Path, help="folder of images")
    index.add_argument("--to", type=Path, required=True, help="folder of the index")
    index.add_argument("--root", type=Path, help="folder that paths are relative to (default: the folder of images)")
    index.add_argument(
        "--config-name", help="of a prediction config, e.g. irt/predict_sop (default: the bundled model)"
    )
    index.add_argument(
        "--faiss", default="Flat", help="factory string: Flat (exact), HNSW32, ... (default: %(default)s)"
    )
    index.add_argument("--shard", default="0/1", help="i/n: only part i of n of the images (default: all)")
    index.add_argument("--predictions", type=Path, help="take the embeddings from what predict_extractor.py wrote")
    index.add_argument("--save-every", type=int, default=20_000, help="images between saves (default: %(default)s)")
    query = commands.add_parser("query", help="find the images nearest to others")
    query.add_argument("images", type=Path, nargs="+", help="image files")
    query.add_argument("--index", type=Path, nargs="+", required=True, help="folder of the index, or of all its shards")
    query.add_argument("--root", type=Path, help="where the images of the index are now, if they have moved")
    query.add_argument("-k", type=int, default=5, help="hits per query (default: %(default)s)")
    query.add_argument("--search-params", default="", help="of an approximate index, e.g. nprobe=16 or efSearch=64")
    query.add_argument("--mmap", action="store_true", help="leave the index on disk")
    query.add_argument("--rerank", type=int, default=0, metavar="N", help="re-rank the first N hits")
    query.add_argument("--reranker", metavar="CONFIG", help="with a postprocessor, e.g. stir/validate_reranker_sop")
    query.add_argument("--picture", type=Path, default=Path("outputs/search.png"), help="default: %(default)s")
    sync = commands.add_parser("sync", help="bring an index up to date: new, changed, renamed and deleted images")
    sync.add_argument("images", type=Path, nargs="?", help="folder of images (default: the root of the index)")
    sync.add_argument("--index", type=Path, required=True, help="folder of the index")
    sync.add_argument("--root", type=Path, help="where the images of the index are now, if they have moved")
    sync.add_argument("--shard", default="0/1", help="i/n: the index holds only part i of n (default: all)")
    remove = commands.add_parser("remove", help="take images out of an index by name; the files stay")
    remove.add_argument("images", nargs="+", help="as a query prints them, below the root; or absolute")
    remove.add_argument("--index", type=Path, required=True, help="folder of the index")
    for command in (index, query, sync):
        command.add_argument("--device", help="cpu or cuda (default: the GPU if there is one)")
        command.add_argument("--batch-size", type=int, default=64, help="images at once (default: %(default)s)")
        command.add_argument("--num-workers", type=int, default=0, help="processes that read (default: %(default)s)")
        command.add_argument(
            "--trust-weights", action="store_true", help="read the index's files of weights even if they can run code"
        )
    args, overrides = parser.parse_known_args()
    wrong = [argument for argument in overrides if argument.startswith("-") or "=" not in argument]
    if wrong:
        parser.error(f"unknown argument {wrong[0]!r}: neither an option of {args.command!r} nor a Hydra override a=b")
    args.overrides = overrides
    return args


def main() -> None:
    args = parse_args()
    try:
        {"index": make_index, "query": answer, "sync": sync_index, "remove": remove_images}[args.command](args)
    except (ValueError, RuntimeError, OSError, HydraException) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
