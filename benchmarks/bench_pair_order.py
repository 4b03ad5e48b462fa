"""How often images are loaded when pairs are scored in bounded memory: by order of the pairs and rule of dropping.

Every picture is a query; its candidates are its nearest neighbours by an 8 x 8 thumbnail. The cache holds a share of
all pictures. Nothing is scored: the loads are counted from the plan, one per image that has to be decoded and encoded.

    python benchmarks/bench_pair_order.py
    python benchmarks/bench_pair_order.py --data DIR   # a folder with df.csv (column "path")
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from oml_vit_ext.reranking.pair_order import Pairs, order_for_reuse, plan_steps

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo_data"


def embeddings(folder: Path) -> NDArray[np.float32]:
    """``(N, 192)``: every picture as 8 x 8 pixels."""
    rows = []
    for path in pd.read_csv(folder / "df.csv")["path"]:
        with Image.open(folder / path) as image:
            rows.append(np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), dtype=np.float32).ravel())
    return np.stack(rows) / 255


def first_stage_pairs(vectors: NDArray[np.float32], top_n: int) -> Pairs:
    """``(N * top_n, 2)``: each image with its nearest others."""
    squares = (vectors**2).sum(1)
    distances = squares[:, None] + squares - 2 * vectors @ vectors.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :top_n]
    return np.stack([np.arange(len(vectors)).repeat(top_n), nearest.ravel()], axis=1)


def loads_least_recently_used(pairs: Pairs, capacity: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    loads = 0
    for image in pairs.ravel().tolist():
        loads += image not in cache
        cache[image] = None
        cache.move_to_end(image)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return loads


def loads_planned(pairs: Pairs, capacity: int, batch: int) -> int:
    return sum(len(step.load) for step in plan_steps(pairs, capacity, batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO, help="folder with df.csv (default: the bundled pictures)")
    parser.add_argument("--share", type=float, default=0.1, help="of the images in the cache (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="pairs per step (default: %(default)s)")
    parser.add_argument("--top-n", type=int, nargs="+", default=[5, 20], help="candidates per query (default: 5 20)")
    args = parser.parse_args()
    vectors = embeddings(args.data)
    capacity = max(2, int(args.share * len(vectors)))
    print(f"{len(vectors)} images, {capacity} of them in memory")
    for top_n in args.top_n:
        pairs = first_stage_pairs(vectors, top_n)
        started = time.perf_counter()
        ordered = pairs[order_for_reuse(pairs, capacity)]
        seconds = time.perf_counter() - started
        rows = {
            "by query, least recently used": loads_least_recently_used(pairs, capacity),
            "by query, planned": loads_planned(pairs, capacity, args.batch),
            "for reuse, least recently used": loads_least_recently_used(ordered, capacity),
            "for reuse, planned": loads_planned(ordered, capacity, args.batch),
        }
        first = rows["by query, least recently used"]
        print(f"top {top_n}: {len(pairs)} pairs; ordering took {seconds:.2f} s")
        for name, loads in rows.items():
            print(f"  {name:32}{loads:8} loads{loads / len(vectors):7.2f} per image{loads / first - 1:+8.0%}")


if __name__ == "__main__":
    main()
