"""Re-ranking with a ViT-S/16: OML's concat_siamese + pairwise_reranker, and stir + stir_reranker, in one run.

Same weights, same images from disk, same candidates. Each measurement has a process of its own, so that its peak memory
is its own; methods take turns, times are medians over the rounds, ratios are medians of the ratios within a round; CPU
time is less disturbed by other work on the machine than the clock is. The model with join_layer=8 is not trained for it
here: only its cost is of interest.

OML keeps about 155 MB per pair of the batch. Where its batch would not fit into this machine's free memory, it is
run with a smaller one and its peak is extrapolated from two batch sizes; the table says so.

    python benchmarks/bench_rerank.py                          # more than 7 minutes on two idle cores
    python benchmarks/bench_rerank.py --device cuda --queries 2000 --workers 8 --half
    OML_VIT_EXT_DATA=/data python benchmarks/bench_rerank.py   # photos of /data/grocery in place of the demo pictures
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from oml.datasets.images import ImageQueryGalleryLabeledDataset
from oml.models.meta.siamese import ConcatSiamese
from oml.models.vit_dino.extractor import ViTExtractor
from oml.retrieval.postprocessors.pairwise import PairwiseReranker
from oml.retrieval.retrieval_results import RetrievalResults
from oml.transforms.images.torchvision import get_normalisation_resize_torch

from json_file import write_json
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRReranker, STIRSiamese
from peak_memory import PeakMemory

METHODS = {
    "oml": "concat_siamese + pairwise_reranker",
    "ours_k0": "stir + stir_reranker, join_layer=0",
    "ours_k8": "stir + stir_reranker, join_layer=8",
}
TOP_NS = (2, 5, 10, 20)
OML_MB_PER_PAIR_224 = 170  # a generous first guess; only decides whether the full batch is tried


def make_dataset(args: argparse.Namespace) -> ImageQueryGalleryLabeledDataset:
    data = os.environ.get("OML_VIT_EXT_DATA")
    root = Path(data) / "grocery" if data else Path(__file__).parent.parent / "examples" / "demo_data"
    df = pd.read_csv(root / "df.csv")
    df = df[df.split == "validation"].sort_values("label", kind="stable").head(args.queries).reset_index(drop=True)
    df["is_query"] = df["is_gallery"] = True
    transform = get_normalisation_resize_torch(im_size=args.size)
    return ImageQueryGalleryLabeledDataset(df, dataset_root=root, transform=transform)


def first_stage(dataset: Any, top_n: int) -> RetrievalResults:
    """Neighbours by colour and coarse shape: as good as any for measuring cost."""
    images = torch.stack([dataset[i][dataset.input_tensors_key] for i in range(len(dataset))])
    embeddings = torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
    return RetrievalResults.from_embeddings(embeddings, dataset=dataset, n_items=top_n + 1, verbose=False)


def make_oml_model() -> ConcatSiamese:
    torch.manual_seed(0)
    return ConcatSiamese(ViTExtractor(None, "vits16", normalise_features=False), [192]).eval()


def make_reranker(method: str, top_n: int, batch: int, weights: Path, args: argparse.Namespace) -> PairwiseReranker:
    common = {"num_workers": args.workers, "batch_size": batch, "use_fp16": args.half}
    if method == "oml":
        return PairwiseReranker(top_n, make_oml_model().to(args.device), **common)
    k = int(method.removeprefix("ours_k"))
    extractor = IRTExtractor(None, "vit_small_patch16_224", normalise_features=False)
    model = STIRSiamese(extractor, [192], join_layer=k, weights=weights).to(args.device)
    return STIRReranker(top_n, model, **common)


def run_child(args: argparse.Namespace) -> None:
    """One measurement, in this process; its figures go to stdout as JSON."""
    torch.set_num_threads(args.threads)
    dataset = make_dataset(args)
    rr = first_stage(dataset, max(args.top_n, args.child_top_n))
    reranker = make_reranker(args.child, args.child_top_n, args.child_batch, args.weights, args)
    decodes = 0
    if args.child == "oml":
        original = type(dataset).__getitem__

        def counted(self: Any, item: int) -> Any:
            nonlocal decodes
            decodes += 1
            return original(self, item)

        if args.workers == 0:
            type(dataset).__getitem__ = counted  # type: ignore[method-assign]
    memory = PeakMemory(args.device)
    started, cpu_started = time.perf_counter(), time.process_time()
    result = reranker.process(rr, dataset)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    n_pairs = sum(min(len(ids), args.child_top_n) for ids in rr.retrieved_ids)
    if isinstance(reranker, STIRReranker):
        decodes = reranker.last_stats.decodes
    elif args.workers:
        decodes = 2 * n_pairs  # counted by the workers, not here; OML decodes both images of every pair
    json.dump(
        {
            "pairs": n_pairs,
            "images": len(dataset),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "pairs_per_s": n_pairs / seconds,
            "peak_extra_mb": memory.extra_mb(),
            "decodes": decodes,
            "ids": [ids.tolist() for ids in result.retrieved_ids],
            "distances": [d.tolist() for d in result.distances],
        },
        sys.stdout,
    )


def measure(method: str, top_n: int, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", method, "--child-top-n", str(top_n)]
    command += ["--child-batch", str(batch), "--weights", str(args.weights), "--queries", str(args.queries)]
    command += ["--top-n", str(args.top_n), "--size", str(args.size), "--workers", str(args.workers)]
    command += ["--threads", str(args.threads), "--device", args.device, *(["--half"] if args.half else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{METHODS[method]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def oml_batch(args: argparse.Namespace) -> int:
    """The wanted batch, or the largest power of two that OML can run in the memory that is free here."""
    if args.device == "cuda":
        free_mb = torch.cuda.mem_get_info()[0] / 1e6
    else:
        free_mb = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    batch, n_pairs = args.batch, args.queries * args.top_n
    while min(batch, n_pairs) * OML_MB_PER_PAIR_224 * (args.size / 224) ** 2 > 0.8 * free_mb and batch > 4:
        batch //= 2
    return batch


def compare(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    batch_of_oml = oml_batch(args)
    rounds: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for _ in range(args.rounds):
        for method in METHODS:
            batch = batch_of_oml if method == "oml" else args.batch
            rounds[method].append(measure(method, args.top_n, batch, args))
    worst = max(
        abs(a - b)
        for oml, ours in zip(rounds["oml"][0]["distances"], rounds["ours_k0"][0]["distances"], strict=True)
        for a, b in zip(oml, ours, strict=True)
    )
    rows: dict[str, dict[str, Any]] = {}
    for method, runs in rounds.items():
        speedups = [r["pairs_per_s"] / h["pairs_per_s"] for r, h in zip(runs, rounds["oml"], strict=True)]
        rows[method] = {
            "pairs_per_s": statistics.median(r["pairs_per_s"] for r in runs),
            "x_oml": statistics.median(speedups),
            "cpu_ms_per_pair": statistics.median(1e3 * r["cpu_seconds"] / r["pairs"] for r in runs),
            "peak_extra_mb": max(r["peak_extra_mb"] for r in runs),
            "decodes": runs[0]["decodes"],
            "pairs": runs[0]["pairs"],
            "images": runs[0]["images"],
            "batch": batch_of_oml if method == "oml" else args.batch,
        }
    if batch_of_oml < args.batch:
        half = measure("oml", args.top_n, batch_of_oml // 2, args)["peak_extra_mb"]
        per_pair = (rows["oml"]["peak_extra_mb"] - half) / (batch_of_oml - batch_of_oml // 2)
        rows["oml"]["peak_extra_mb_extrapolated"] = half + per_pair * (args.batch - batch_of_oml // 2)
    rows["oml"]["largest_difference_to_ours_k0"] = worst
    return rows


def print_comparison(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    first = rows["oml"]
    print(f"\n{first['pairs']} pairs of {first['images']} images, top {args.top_n}")
    oml_peak = first.get("peak_extra_mb_extrapolated", first["peak_extra_mb"])
    columns = {
        "batch": "batch",
        "pairs_per_s": "pairs/s",
        "x_oml": "x oml",
        "cpu_ms_per_pair": "CPU per pair, ms",
        "peak_extra_mb": "peak extra, MB",
        "decodes": "decodes",
    }
    table = pd.DataFrame.from_dict(rows, orient="index")[list(columns)].rename(columns=columns, index=METHODS)
    print(table.to_string(float_format="{:.2f}".format))
    if "peak_extra_mb_extrapolated" in first:
        print(f"  OML at batch {args.batch} does not fit here: {oml_peak:.0f} MB, extrapolated")
    for method in ("ours_k0", "ours_k8"):
        print(f"  {METHODS[method]}: {rows[method]['peak_extra_mb'] / oml_peak:.3f} of OML's peak memory")
    print(f"  largest difference of a distance, OML to join_layer=0: {first['largest_difference_to_ours_k0']:.1e}")


def cost_by_top_n(args: argparse.Namespace) -> dict[str, dict[int, float]]:
    print(f"\nseconds for {args.queries} queries by top_n (and milliseconds per pair)")
    costs: dict[str, dict[int, float]] = {}
    for method in ("ours_k0", "ours_k8"):
        costs[method] = {}
        for top_n in [n for n in TOP_NS if n < args.queries]:
            run = measure(method, top_n, args.batch, args)
            costs[method][top_n] = run["seconds"]
            per_pair_ms = 1e3 * run["seconds"] / run["pairs"]
            print(f"  {METHODS[method]:38}{top_n:4}{run['seconds']:9.2f} s{per_pair_ms:9.1f} ms")
    return costs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=26, help="images, each of them query and gallery")
    parser.add_argument("--top-n", type=int, default=5, help="candidates per query (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="pairs (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each method takes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--half", action="store_true", help="half precision")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--child", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--child-top-n", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child-batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.child:
        warnings.simplefilter("ignore")
        logging.getLogger("oml_vit_ext").setLevel(logging.ERROR)
        run_child(args)
        return
    print(f"ViT-S/16 at {args.size} px, {args.threads} threads, {args.workers} workers, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        args.weights = Path(folder) / "pairwise.ckpt"
        torch.save({"state_dict": make_oml_model().state_dict()}, args.weights)
        rows = compare(args)
        print_comparison(rows, args)
        costs = cost_by_top_n(args)
    if args.json:
        hidden = ("child", "child_top_n", "child_batch", "weights", "json")
        settings = {key: value for key, value in vars(args).items() if key not in hidden}
        write_json(args.json, {"settings": settings, "methods": rows, "seconds_by_top_n": costs})


if __name__ == "__main__":
    main()
