"""An index in Milvus beside the same in a folder: the same neighbours? how many queries a second? two writers at once.

  make milvus-server
  python benchmarks/bench_milvus.py --rows 60000

starts a server (or asks the one of ``--server``), fills a collection for each kind of index from two processes side by
side, waits until its index is built, and asks it. Rows are random: points around as many centres as there are rows to a
hundred, each with its own direction, as embeddings of products lie. The figures go into a file beside those of
``bench_scale.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from json_file import write_json
from oml_vit_ext.retrieval import Fingerprint, Hit, ImageIndex, MilvusIndex, SearchIndex

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

PHOTOS = Path("/photos")  # which need not exist
K = 5
# Name, arguments of MilvusIndex.create, search_params; the first finds all that is to be found.
KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("FLAT", {"index": "FLAT"}, ""),
    ("AUTOINDEX", {"index": "AUTOINDEX"}, ""),
    ("HNSW", {"index": "HNSW", "index_params": {"M": 32, "efConstruction": 200}}, "ef=64"),
    ("IVF_PQ", {"index": "IVF_PQ", "index_params": {"nlist": 256, "m": 96, "nbits": 8}}, "nprobe=32"),
]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    rows, queries = made_up(args.rows, args.queries, args.dim)
    folder = SearchIndex(PHOTOS, fingerprint(args.dim))
    folder.add_embeddings(names(0, args.rows), rows, folder.fingerprint)
    expected = found(folder, queries, "")
    results: dict[str, Any] = {"a folder": {"queries_per_second": one_by_one(folder, queries, "", args.rounds)}}
    with serving(args.server) as uri:
        for kind, how, search_params in KINDS:
            MilvusIndex.create(uri, PHOTOS, fingerprint(args.dim), collection=kind, patience=180, **how).close()
            start = time.perf_counter()
            fill_from_two(uri, kind, args.rows, args.dim)
            stored = time.perf_counter() - start
            index = MilvusIndex.open(uri, collection=kind)
            if len(index) != args.rows or len(index.images) != args.rows:
                raise RuntimeError(f"{kind}: {len(index)} rows are in, expected {args.rows}.")
            built = wait_until_built(index)
            hits = found(index, queries, search_params)
            results[kind] = {
                "rows_stored_per_second": args.rows / stored,
                "seconds_until_built": built,
                "recall_at_5": float(np.mean([len(set(a) & set(b)) / K for a, b in zip(hits, expected, strict=True)])),
                "same_five": float(np.mean([a == b for a, b in zip(hits, expected, strict=True)])),
                "queries_per_second": one_by_one(index, queries, search_params, args.rounds),
                "search_params": search_params,
                **how,
            }
            index.close()
            print(kind, results[kind])
    content = json.loads(args.to.read_text()) if args.to.is_file() else {}
    content["milvus"] = {"rows": args.rows, "dim": args.dim, "queries": args.queries, "kinds": results}
    write_json(args.to, content)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="URL (default: one of make milvus-server, for as long as this runs)")
    parser.add_argument("--rows", type=int, default=60_000, help="in each collection (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="default: %(default)s, that of a ViT-S")
    parser.add_argument("--queries", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs/results/scale.json", help="result file")
    return parser.parse_args()


def made_up(n_rows: int, n_queries: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and queries around the same centres: ``(n, dim)``, of length 1."""
    centres = np.random.default_rng(0).standard_normal((max(1, n_rows // 100), dim), dtype=np.float32)
    rows, queries = (_around(centres, n, seed) for seed, n in enumerate((n_rows, n_queries), start=1))
    return rows, queries


def _around(centres: np.ndarray, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(len(centres), size=n)]
    points += 0.7 * rng.standard_normal(points.shape, dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def fingerprint(dim: int) -> Fingerprint:
    return Fingerprint("random", "0" * 32, "none", tuple(np.linspace(0.1, 1, dim).tolist()))


def names(start: int, stop: int) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{i:06d}.jpg" for i in range(start, stop)]})


@contextmanager
def serving(server: str | None) -> Iterator[str]:
    if server:
        yield server
        return
    from helpers.milvus_server import MilvusServer

    folder = Path(tempfile.mkdtemp())
    started = MilvusServer(folder / "data")
    started.start()
    try:
        yield started.uri
    finally:
        started.kill()
        shutil.rmtree(folder, ignore_errors=True)


def fill_from_two(uri: str, collection: str, n_rows: int, dim: int) -> None:
    """Two processes, a half each."""
    middle = n_rows // 2
    parts = [(0, middle), (middle, n_rows)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as writers:
        for done in [writers.submit(fill, uri, collection, n_rows, dim, *part) for part in parts]:
            done.result()


def fill(uri: str, collection: str, n_rows: int, dim: int, start: int, stop: int) -> None:
    rows, _ = made_up(n_rows, 0, dim)
    index = MilvusIndex.open(uri, collection=collection, patience=180)
    index.add_embeddings(names(start, stop), rows[start:stop], index.fingerprint)
    index.close()


def wait_until_built(index: MilvusIndex) -> float:
    """Seconds from the last row until the server has built its index over all of them."""
    start = time.perf_counter()
    client = index._client
    client.flush(index.collection)
    while True:
        [name] = client.list_indexes(index.collection)
        state = client.describe_index(index.collection, name)
        if state["pending_index_rows"] == 0 and state["indexed_rows"] >= len(index):
            return time.perf_counter() - start
        time.sleep(2)


def found(index: ImageIndex, queries: np.ndarray, search_params: str) -> list[list[str]]:
    return [paths(hits) for hits in index.search(queries, K, search_params=search_params)]


def paths(hits: list[Hit]) -> list[str]:
    return [hit.path for hit in hits]


def one_by_one(index: ImageIndex, queries: np.ndarray, search_params: str, rounds: int) -> float:
    """Queries per second of one client that waits for each answer, median."""
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        for query in tqdm(queries, desc="Asking", leave=False):
            index.search(query, K, search_params=search_params)
        rates.append(len(queries) / (time.perf_counter() - start))
    return float(np.median(rates))


if __name__ == "__main__":
    main()
