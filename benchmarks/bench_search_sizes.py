"""From which size on faiss pays in OML's validation: what the rule ``faiss_search: auto`` is made of.

n embeddings of 384 dimensions, each a query against all others, top 10: OML's ``RetrievalResults.from_embeddings`` and
the same inside ``faiss_search`` take turns in one process. The seconds are those of the processor divided by the
threads: what an idle machine takes. OML's largest matrix of distances is 4 bytes × 5 000 queries × n, and its mask a
quarter of that.

  python benchmarks/bench_search_sizes.py --json docs/results/search_sizes.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import torch
from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
from oml.interfaces.datasets import IBaseDataset
from oml.retrieval.retrieval_results import RetrievalResults

from json_file import write_json
from oml_vit_ext.retrieval import faiss_search

DIM, TOP_N, PER_LABEL = 384, 10, 5


class Items(IBaseDataset):
    """A data set without content: retrieval asks only for its length and columns."""

    input_tensors_key, index_key = "input_tensors", "idx"

    def __init__(self, n: int) -> None:
        self.n, self.extra_data = n, {}

    def __len__(self) -> int:
        return self.n


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    rows = []
    print(f"{'n':>8}{'pairs':>14}{'OML, s':>10}{'faiss, s':>10}{'ratio':>8}   same neighbours")
    for n in args.sizes:
        row = one_size(n, args.rounds)
        rows.append(row)
        same = "yes" if row["same"] else "NO"
        print(f"{n:8}{n * n:14}{row['oml_s']:10.3f}{row['faiss_s']:10.3f}{row['ratio']:8.2f}   {same}", flush=True)
    if args.json:
        write_json(args.json, {"threads": args.threads, "rounds": args.rounds, "rows": rows})


def one_size(n: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) // PER_LABEL
    x = rng.standard_normal((n, DIM), dtype=np.float32) + rng.standard_normal((n, DIM), dtype=np.float32)[labels]
    embeddings = torch.nn.functional.normalize(torch.from_numpy(x))
    df = pd.DataFrame({"label": labels, "is_query": True, "is_gallery": True})
    dataset = DFQueryGalleryLabeledDataset(Items(n), df)

    def search() -> tuple[float, Any]:
        started = time.process_time()
        found = RetrievalResults.from_embeddings(embeddings, dataset, n_items=TOP_N)
        return (time.process_time() - started) / torch.get_num_threads(), found

    oml, ours = [], []
    for _ in range(rounds):
        oml.append(search())
        with faiss_search():
            ours.append(search())
    oml_s, ours_s = (statistics.median(seconds for seconds, _ in turns) for turns in (oml, ours))
    # The same to ties: where the items differ, their distances do not. Those near zero are more exact through faiss.
    same = all(torch.allclose(a, b, atol=1e-3) for a, b in zip(oml[0][1].distances, ours[0][1].distances, strict=True))
    return {"n": n, "pairs": n * n, "oml_s": oml_s, "faiss_s": ours_s, "ratio": oml_s / ours_s, "same": same}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000])
    parser.add_argument("--rounds", type=int, default=3, help="turns at each size (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch and faiss (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
