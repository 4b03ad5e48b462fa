"""k-reciprocal re-ranking beside its authors' dense algorithm: time and memory.

n embeddings of 384 dimensions, each a query against all others, k1 20, k2 6, top 10. The dense version is the one the
tests compare with (tests/helpers/dense_k_reciprocal.py), in float32 and vectorised where the authors loop. Each runs in
a process of its own. The seconds are those of the processor divided by the threads; memory is the resident set's peak
above what it was before (Linux).

  python benchmarks/bench_k_reciprocal.py --json docs/results/k_reciprocal.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from json_file import write_json
from oml_vit_ext.reranking import KReciprocalReranker
from oml_vit_ext.retrieval.nearest import Grouping
from oml_vit_ext.retrieval.retrieve import oml_results
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.search_space import SearchSpace
from oml_vit_ext.retrieval.settings import Settings
from peak_memory import PeakMemory

DIM, K1, K2, LAMBDA, TOP_N, PER_LABEL = 384, 20, 6, 0.3, 10, 20


def embeddings_of(n: int) -> Any:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n // PER_LABEL + 1, DIM), dtype=np.float32)
    x = centres[np.arange(n) // PER_LABEL] + 1.5 * rng.standard_normal((n, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ours(n: int, threads: int) -> dict[str, Any]:
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    rows, itself = Rows(embeddings_of(n)), np.arange(n)
    space = SearchSpace(rows, rows, [Grouping(itself, itself)], Settings())
    rr = oml_results(*space.search(TOP_N), None)
    memory, started = PeakMemory(), time.process_time()
    found, _ = KReciprocalReranker(K1, K2, LAMBDA).process_in(space, rr)
    seconds = (time.process_time() - started) / threads
    return {
        "seconds": seconds,
        "extra_mb": memory.extra_mb(),
        "ids": [ids.tolist() for ids in found.retrieved_ids[:50]],
    }


def dense(n: int, threads: int) -> dict[str, Any]:
    x = embeddings_of(n)
    memory, started = PeakMemory(), time.process_time()
    products = x @ x.T
    squared = np.maximum(2 - 2 * products, 0)
    np.fill_diagonal(squared, 0)
    del products
    original = squared / squared.max(axis=1, keepdims=True)
    rank = np.argsort(original, axis=1)[:, : K1 + 1]
    in_list = np.zeros((n, n), dtype=bool)
    in_list[np.arange(n)[:, None], rank] = True
    in_half = np.zeros((n, n), dtype=bool)
    in_half[np.arange(n)[:, None], rank[:, : K1 // 2 + 1]] = True
    v = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        near = rank[i][in_list[rank[i], i]]
        members = [near]
        for c in near:
            half = rank[c, : K1 // 2 + 1]
            half = half[in_half[half, c]]
            if 3 * np.isin(half, near).sum() > 2 * len(half):
                members.append(half)
        together = np.unique(np.concatenate(members))
        weights = np.exp(-original[i, together])
        v[i, together] = weights / weights.sum()
    v = np.stack([v[rank[i, :K2]].mean(axis=0) for i in range(n)])
    first = []
    for i in range(n):
        columns = np.flatnonzero(v[i])
        shared = np.minimum(v[i, columns], v[:, columns]).sum(axis=1)
        final = (1 - LAMBDA) * (1 - shared / (2 - shared)) + LAMBDA * original[i]
        final[i] = np.inf
        first.append(np.argsort(final)[:TOP_N])
    seconds = (time.process_time() - started) / threads
    return {"seconds": seconds, "extra_mb": memory.extra_mb(), "ids": [ids.tolist() for ids in first[:50]]}


def run(worker: str, n: int, threads: int) -> dict[str, Any]:
    """In a process of its own, forked from this one, which imports but does not compute."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, {"ours": ours, "dense": dense}[worker], n, threads))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{worker} failed at n = {n}.") from None
    finally:
        process.join()


def _send(sender: Any, measure: Any, n: int, threads: int) -> None:
    with threadpool_limits(threads):
        sender.send(measure(n, threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_500, 5_000, 10_000, 20_000])
    parser.add_argument("--dense-up-to", type=int, default=20_000, help="the dense version needs 30 bytes x n x n")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    args = parser.parse_args()
    rows = []
    print(f"{'n':>8}{'ours, s':>10}{'MB':>8}{'dense, s':>10}{'MB':>8}   same first ten of 50 queries")
    for n in args.sizes:
        row: dict[str, Any] = {"n": n}
        of_ours = run("ours", n, args.threads)
        row.update(ours_s=of_ours["seconds"], ours_mb=of_ours["extra_mb"])
        text = f"{n:8}{row['ours_s']:10.1f}{row['ours_mb']:8.0f}"
        if n <= args.dense_up_to:
            of_dense = run("dense", n, args.threads)
            same = sum(a == b for a, b in zip(of_ours["ids"], of_dense["ids"], strict=True))
            row.update(dense_s=of_dense["seconds"], dense_mb=of_dense["extra_mb"], same_of_50=same)
            text += f"{row['dense_s']:10.1f}{row['dense_mb']:8.0f}   {same}"
        print(text, flush=True)
        rows.append(row)
    if args.json:
        write_json(args.json, {"threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
