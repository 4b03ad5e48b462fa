"""Search at the size of SOP and at a million: ours beside OML's, and what approximate indexes find how fast.

1. SOP's size: 60 502 embeddings of 384 dimensions, each a query against all others, top 100. OML's
   ``RetrievalResults.from_embeddings`` and our ``retrieve`` take turns, each in a process of its own, on the same file
   of embeddings (random, around 11 316 class centres: the time of an exact search does not depend on them).
2. A million embeddings of 384 dimensions, exact search: time, and the memory of the whole process. OML's distances
   of a single batch of 5 000 queries would be 18.6 GiB (5 000 × 10^6 × 4 bytes): it is not run.
3. A million embeddings, 1 000 queries: recall@10 against queries per second for IVF, HNSW and PQ. The embeddings are
   made of real ones: the bundled pictures of emoji (examples/demo_data), each under random crops and colours, through
   the bundled model (192 dimensions). A gallery row is one of these embeddings plus the difference between two views
   of another picture, normalised; queries are views that the gallery is not made of. That is no million different
   photographs: curves on your own embeddings will differ.

Memory is the resident set's peak above what it was before the search (1) or in total (2), read from Linux's /proc.

    python benchmarks/bench_retrieval.py            # about 10 minutes on two idle cores, 6 GB of memory
    python benchmarks/bench_retrieval.py --quick    # small sizes, under a minute: to see that it runs
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from peak_memory import PeakMemory

ROOT = Path(__file__).parent.parent
DIM, TOP_N, N_CLASSES = 384, 100, 11_316
SIZES = {
    "sop": 60_502,
    "large": 1_000_000,
    "large_queries": 2_000,
    "approximate": 1_000_000,
    "approximate_queries": 1_000,
}
QUICK = {"sop": 4_000, "large": 30_000, "large_queries": 200, "approximate": 20_000, "approximate_queries": 200}
N_VIEWS = 6  # of each bundled picture
# Factory strings and the settings of the search to try. "@100": the best 10 by true distance of 100 that were found.
INDEXES = {
    "IVF1024,Flat": ["nprobe=1", "nprobe=4", "nprobe=16", "nprobe=64"],
    "HNSW16": ["efSearch=16", "efSearch=64", "efSearch=256"],
    "IVF1024,PQ48np": ["nprobe=16", "nprobe=64", "nprobe=16@100", "nprobe=64@100"],
}
QUICK_INDEXES = {"IVF64,Flat": ["nprobe=1", "nprobe=8"], "HNSW16": ["efSearch=64"], "IVF64,PQ48np": ["nprobe=8@100"]}

Figures = dict[str, Any]


# --- in processes of their own ---


def oml_sop(args: argparse.Namespace) -> Figures:
    from oml.retrieval.retrieval_results import RetrievalResults

    return sop(args, lambda x, dataset: RetrievalResults.from_embeddings(x, dataset, n_items=TOP_N))


def ours_sop(args: argparse.Namespace) -> Figures:
    from oml_vit_ext.retrieval import retrieve

    return sop(args, lambda x, dataset: retrieve(x, dataset, n_items=TOP_N))


def sop(args: argparse.Namespace, search: Callable[[Any, Any], Any]) -> Figures:
    import pandas as pd
    import torch
    from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
    from oml.interfaces.datasets import IBaseDataset

    class Items(IBaseDataset):
        """A data set without content: retrieval asks only for its length and columns."""

        input_tensors_key, index_key = "input_tensors", "idx"

        def __init__(self, n: int) -> None:
            self.n, self.extra_data = n, {}

        def __len__(self) -> int:
            return self.n

    def dataset_of(labels: Any) -> Any:
        df = pd.DataFrame({"label": labels, "is_query": True, "is_gallery": True})
        return DFQueryGalleryLabeledDataset(Items(len(df)), df)

    set_threads(args.threads)
    embeddings = torch.from_numpy(np.load(args.file))
    labels = np.arange(len(embeddings)) * N_CLASSES // len(embeddings)
    dataset = dataset_of(labels)
    search(embeddings[:64].clone(), dataset_of(labels[:64]))  # imports, thread pools
    memory = PeakMemory()
    start = time.perf_counter()
    found = search(embeddings, dataset)
    seconds = time.perf_counter() - start
    extra = memory.extra_mb()
    check = sum(float(d.sum()) for d in found.distances[::500])
    return {"seconds": seconds, "extra_mb": extra, "checksum": check, "first": found.retrieved_ids[0][:10].tolist()}


def large(args: argparse.Namespace) -> Figures:
    """Exact search among a million rows."""
    from oml_vit_ext.retrieval.retrieve import knn_qg
    from oml_vit_ext.retrieval.settings import Settings

    set_threads(args.threads)
    rng = np.random.default_rng(0)
    gallery = np.empty((args.size, DIM), dtype=np.float32)
    for start in range(0, args.size, 50_000):
        rng.standard_normal(dtype=np.float32, out=gallery[start : start + 50_000])
    queries = rng.standard_normal((args.queries, DIM), dtype=np.float32)
    memory = PeakMemory()
    start_s = time.perf_counter()
    knn_qg(queries, gallery, n_items=TOP_N, settings=Settings())
    seconds = time.perf_counter() - start_s
    return {"seconds": seconds, "extra_mb": memory.extra_mb(), "total_mb": memory.total_mb()}


def embeddings(args: argparse.Namespace) -> Figures:
    """Real embeddings of random views, then as many rows as asked for, made of them; saved beside ``args.file``."""
    import torch
    import torchvision.transforms as t
    from PIL import Image

    from oml_vit_ext.extractors import IRTExtractor

    set_threads(args.threads)
    torch.manual_seed(0)
    demo = ROOT / "examples" / "demo_data"
    extractor = IRTExtractor(
        weights=ROOT / "examples/demo_weights/vit_tiny_emoji.safetensors",
        arch="vit_tiny_r_s16_p8_224",
        timm_args={"img_size": 48, "patch_size": 2, "depth": 6},
    ).eval()
    crop = t.Compose(
        [t.RandomResizedCrop(48, scale=(0.6, 1.0)), t.RandomHorizontalFlip(), t.ColorJitter(0.3, 0.3, 0.3)]
    )
    normalise = t.Compose([t.ToTensor(), t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    paths = sorted(demo.glob("images/*/*.jpg"))[:: args.every]
    started = time.perf_counter()
    views = []
    with torch.no_grad():
        for start in range(0, len(paths), 32):
            pictures = [Image.open(path).convert("RGB") for path in paths[start : start + 32]]
            batch = torch.stack([normalise(crop(picture)) for picture in pictures for _ in range(N_VIEWS)])
            views.append(extractor(batch).view(len(pictures), N_VIEWS, -1))
    real = torch.cat(views).numpy()  # (pictures, views, dim)
    seconds = time.perf_counter() - started

    rng = np.random.default_rng(0)
    kept, held_out = real[:, : N_VIEWS - 1], real[:, N_VIEWS - 1]
    rows = np.empty((args.size, real.shape[2]), dtype=np.float32)
    for start in range(0, args.size, 50_000):
        n = min(50_000, args.size - start)
        picture, other = rng.integers(0, len(real), (2, n))
        view, one = rng.integers(0, N_VIEWS - 1, (2, n))
        two = (one + rng.integers(1, N_VIEWS - 1, n)) % (N_VIEWS - 1)  # never the same view: rows would repeat
        rows[start : start + n] = kept[picture, view] + kept[other, one] - kept[other, two]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(args.file, rows)
    np.save(f"{args.file}.queries.npy", held_out[rng.permutation(len(held_out))[: args.queries]])
    return {"pictures": len(real), "views": N_VIEWS, "dim": real.shape[2], "seconds": seconds}


def approximate(args: argparse.Namespace) -> Figures:
    """One index: building it, and recall@10 and queries per second for each setting."""
    from oml_vit_ext.retrieval.engines import FaissEngine, build_index, exact_engine
    from oml_vit_ext.retrieval.nearest import nearest
    from oml_vit_ext.retrieval.rows import Rows
    from oml_vit_ext.retrieval.settings import Settings

    set_threads(args.threads)
    gallery = Rows(np.load(args.file, mmap_mode="r"))
    queries = Rows(np.load(f"{args.file}.queries.npy")[: args.queries])
    truth_file = Path(f"{args.file}.truth.npy")
    figures: Figures = {"searches": {}}
    settings = Settings(memory_mb=512)  # half of it for the search

    def search(engine: Any, k: int) -> tuple[Any, float]:
        start = time.perf_counter()
        _, ids = nearest(queries, gallery, engine, k, [], settings)
        return [row[:10].tolist() for row in ids], time.perf_counter() - start

    if args.index == "Flat":
        truth, seconds = search(exact_engine(gallery, settings), 10)
        np.save(truth_file, np.array(truth))
        figures["searches"]["exact"] = {"recall": 1.0, "queries_per_s": len(queries) / seconds}
        return figures
    truth = np.load(truth_file)
    memory = PeakMemory()
    start = time.perf_counter()
    index = build_index(gallery, args.index, memory_mb=256, verbose=False)
    figures.update(build_s=time.perf_counter() - start, build_mb=memory.extra_mb())
    for setting in args.settings:
        params, _, k = setting.partition("@")
        engine = FaissEngine(index, params, args.index)
        search(engine, 10)  # pages of the index come into the caches
        found, seconds = search(engine, int(k or 10))
        hits = sum(len(set(a) & set(b.tolist())) for a, b in zip(found, truth, strict=True))
        figures["searches"][setting] = {
            "recall": hits / (10 * len(queries)),
            "queries_per_s": len(queries) / seconds,
        }
    return figures


WORKERS = {f.__name__: f for f in (oml_sop, ours_sop, large, embeddings, approximate)}


def set_threads(n: int) -> None:
    import faiss
    import torch

    faiss.omp_set_num_threads(n)
    torch.set_num_threads(n)


# --- the run ---


def run(worker: str, args: argparse.Namespace, **more: Any) -> Figures:
    """One worker in a process of its own."""
    settings = json.dumps({"threads": args.threads, **more})
    done = subprocess.run(
        [sys.executable, __file__, "--worker", worker, "--settings", settings],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{worker} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bench_sop(args: argparse.Namespace, size: int, folder: Path) -> Figures:
    rng = np.random.default_rng(0)
    labels = np.arange(size) * N_CLASSES // size
    embeddings = rng.standard_normal((N_CLASSES, DIM), dtype=np.float32)[labels]
    embeddings += rng.standard_normal(embeddings.shape, dtype=np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    file = folder / "sop.npy"
    np.save(file, embeddings)
    del embeddings
    turns: dict[str, list[Figures]] = {"oml_sop": [], "ours_sop": []}
    for _ in range(args.rounds):
        for name, figures in turns.items():
            figures.append(run(name, args, file=str(file)))
    oml, ours = turns["oml_sop"], turns["ours_sop"]
    same = oml[0]["first"] == ours[0]["first"] and abs(oml[0]["checksum"] / ours[0]["checksum"] - 1) < 1e-4
    print(f"\n{size} × {DIM}, all queries, top {TOP_N}")
    print(f"  {'':34}{'seconds':>10}{'extra memory':>16}")
    for title, figures in (("oml, from_embeddings", oml), ("retrieve, index Flat", ours)):
        print(f"  {title:34}{median(figures, 'seconds'):10.1f}{median(figures, 'extra_mb'):13.0f} MB")
    speed = statistics.median(h["seconds"] / o["seconds"] for h, o in zip(oml, ours, strict=True))
    memory = statistics.median(h["extra_mb"] / o["extra_mb"] for h, o in zip(oml, ours, strict=True))
    print(
        f"  {speed:.1f} times as fast, 1/{memory:.1f} of the extra memory; the same results: {'yes' if same else 'NO'}"
    )
    return {"oml": oml, "ours": ours, "speed_ratio": speed, "memory_ratio": memory, "same_results": same}


def bench_large(args: argparse.Namespace, size: int, queries: int) -> Figures:
    figures = run("large", args, size=size, queries=queries)
    print(f"\n{size} × {DIM}, {queries} queries, top {TOP_N}, exact")
    print(f"  {figures['seconds']:.1f} s: {queries / figures['seconds']:.0f} queries per second")
    print(
        f"  memory: {figures['total_mb'] / 1073.742:.2f} GiB for the whole process, the embeddings included; "
        f"the search adds {figures['extra_mb']:.0f} MB"
    )
    print(f"  OML's distances of one batch of 5000: {5000 * size * 4 / 2**30:.1f} GiB")
    return figures


def bench_approximate(args: argparse.Namespace, size: int, queries: int, folder: Path) -> Figures:
    file = str(folder / "embeddings.npy")
    made = run("embeddings", args, file=file, size=size, queries=queries, every=10 if args.quick else 1)
    print(
        f"\n{size} × {made['dim']}, made of {made['pictures']} pictures × {made['views'] - 1} views "
        f"({made['seconds']:.0f} s to embed), {queries} queries"
    )
    print(f"  {'':16}{'build':>9}{'memory':>11}   {'search':16}{'recall@10':>10}{'queries/s':>11}")
    results = {}
    for index, settings in {"Flat": [], **(QUICK_INDEXES if args.quick else INDEXES)}.items():
        figures = run("approximate", args, file=file, index=index, settings=settings, queries=queries)
        results[index] = figures
        build = f"{figures['build_s']:7.0f} s{figures['build_mb']:8.0f} MB" if "build_s" in figures else " " * 20
        for setting, row in figures["searches"].items():
            print(f"  {index:16}{build}   {setting:16}{row['recall']:10.3f}{row['queries_per_s']:11.0f}", flush=True)
            index, build = "", " " * 20
    return {"embeddings": made, "indexes": results}


def median(figures: list[Figures], key: str) -> float:
    return statistics.median(f[key] for f in figures)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--parts", nargs="+", choices=("sop", "large", "approximate"), help="only these (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="turns at SOP's size (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch and faiss (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](argparse.Namespace(**args.settings))))
        return
    sizes = QUICK if args.quick else SIZES
    parts = args.parts or ["sop", "large", "approximate"]
    print(f"{args.threads} threads, {platform.processor() or platform.machine()}")
    started = time.perf_counter()
    results: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "sop" in parts:
            results["sop"] = bench_sop(args, sizes["sop"], folder)
        if "large" in parts:
            results["large"] = bench_large(args, sizes["large"], sizes["large_queries"])
        if "approximate" in parts:
            results["approximate"] = bench_approximate(args, sizes["approximate"], sizes["approximate_queries"], folder)
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    if args.json:
        from json_file import write_json  # imports the package, which the measured processes do on their own

        write_json(args.json, {"threads": args.threads, "quick": args.quick, **results})


if __name__ == "__main__":
    main()
