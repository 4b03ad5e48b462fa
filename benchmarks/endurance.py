"""Whether long runs stay as they began: numbers finite, memory and open files flat.

  python benchmarks/endurance.py                 # all of it, into docs/results/endurance.json
  python benchmarks/endurance.py --parts pairs --pairs 5000 --results /tmp/endurance.json

``autocast``: each loss under autocast, in bfloat16 and where this torch has it in float16, on a model that learns.
``duplicates``: KoLeo on batches of exact and near duplicates, from 1e-20 to 1e-1 apart.
``memory``: steps of IRT_R with a memory that is full. ``pairs``: pairs that a tiny STIR re-ranks. Of these two the
resident memory, the open files and Python's objects are measured at twenty points; "grown" is by how much the last
quarter's mean is above that of the second quarter. Needs Linux.

A part that is run again replaces its figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from oml.datasets.images import ImageQueryGalleryLabeledDataset
from oml.retrieval.retrieval_results import RetrievalResults
from PIL import Image
from torch import Tensor, nn

from json_file import write_json
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, PMLLoss
from oml_vit_ext.reranking import STIRReranker, STIRSiamese
from oml_vit_ext.transforms import get_norm_resize_irt

ROOT = Path(__file__).parents[1]
N_POINTS = 20

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "contrastive_xbm": lambda: ContrastiveXBMLoss(memory_size=64),
    "contrastive_xbm, nonzero_pairs": lambda: ContrastiveXBMLoss(memory_size=64, reduction="nonzero_pairs"),
    "differential_entropy": DifferentialEntropyLoss,
    "irt": lambda: IRTLoss(memory_size=64),
    "pml, TripletMarginLoss": lambda: PMLLoss({"name": "TripletMarginLoss"}, memory_size=64),
    "pml, MultiSimilarityLoss": lambda: PMLLoss({"name": "MultiSimilarityLoss"}, memory_size=64),
}
Figures = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    parts: dict[str, Callable[[], Figures]] = {
        "autocast": lambda: autocast(args.steps),
        "duplicates": lambda: duplicates(args.batches),
        "memory": lambda: memory(args.memory_steps),
        "pairs": lambda: pairs(args.pairs),
    }
    for name in args.parts or parts:
        started = time.perf_counter()
        figures = {**parts[name](), "seconds": round(time.perf_counter() - started), "torch": torch.__version__}
        print(f"{name}: {figures}", flush=True)
        with FileLock(f"{args.results}.lock"):  # calls for other parts may share the work
            known = json.loads(args.results.read_text()) if args.results.is_file() else {}
            write_json(args.results, dict(sorted({**known, name: figures}.items())))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("autocast", "duplicates", "memory", "pairs"))
    parser.add_argument("--steps", type=int, default=1_000, help="of each loss under autocast")
    parser.add_argument("--batches", type=int, default=1_000, help="with duplicates")
    parser.add_argument("--memory-steps", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/endurance.json")
    return parser.parse_args()


def autocast(n_steps: int) -> Figures:
    """Steps whose loss, gradient or weights were not finite, of each loss and type."""
    not_finite: Figures = {}
    for dtype in (torch.bfloat16, torch.float16):
        for name, make in LOSSES.items():
            torch.manual_seed(0)
            criterion, model = make(), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            bad = 0
            for _ in range(n_steps):
                labels = torch.randint(0, 8, (16,))
                images = torch.randn(8, 16)[labels] + 0.3 * torch.randn(16, 16)
                with torch.autocast("cpu", dtype=dtype):
                    loss = criterion(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                tensors = [loss, *model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
                bad += not all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
            not_finite[f"{name}, {str(dtype).removeprefix('torch.')}"] = bad
    return {"steps_of_each": n_steps, "not_finite": not_finite}


def duplicates(n_batches: int) -> Figures:
    """Batches whose KoLeo or its gradient was not finite; half of the rows are (near) copies of others."""
    bad = 0
    criterion = DifferentialEntropyLoss()
    for batch in range(n_batches):
        rng = torch.Generator().manual_seed(batch)
        rows = torch.randn(8, 6, generator=rng)
        apart = 0.0 if batch % 2 else 10.0 ** float(torch.randint(-20, 0, (1,), generator=rng))
        copies = rows + apart * torch.randn(8, 6, generator=rng)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            features = torch.cat([rows, copies]).to(dtype).requires_grad_()
            loss = criterion(features, torch.zeros(16, dtype=torch.int64))
            loss.backward()
            bad += not bool(torch.isfinite(loss) and torch.isfinite(features.grad).all())
    return {"batches": 3 * n_batches, "not_finite": bad}


def memory(n_steps: int) -> Figures:
    """Training steps of IRT_R whose memory is full from the start on."""
    torch.manual_seed(0)
    criterion, model = IRTLoss(memory_size=256), nn.Linear(16, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def step() -> Tensor:
        loss: Tensor = criterion(model(torch.randn(8, 16)), torch.randint(0, 20, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    while len(criterion.memory) < criterion.memory.size:
        step()
    points = []
    for _ in range(N_POINTS):
        losses = [float(step().detach()) for _ in range(n_steps // N_POINTS)]
        assert np.isfinite(losses).all(), "a loss that is not finite"
        points.append(measured())
    return {"steps": n_steps // N_POINTS * N_POINTS, **summary(points)}


def pairs(n_pairs: int) -> Figures:
    """Pairs of a tiny STIR, each call decoding and encoding its images anew."""
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 16, "num_heads": 2}
    extractor = IRTExtractor(None, "vit_tiny_patch16_224", timm_args=small)
    model = STIRSiamese(extractor, mlp_hidden_dims=[8], join_layer=1).eval()
    reranker = STIRReranker(10, model, num_workers=0, batch_size=256)
    with tempfile.TemporaryDirectory() as folder:
        n_queries = min(50, max(1, n_pairs // N_POINTS // 10))
        dataset, retrieved = pictures(Path(folder), n_queries, top_n=10)
        points, done = [], 0
        for _ in range(N_POINTS):
            for _ in range(max(1, n_pairs // N_POINTS // n_queries // 10)):
                result = reranker.process(retrieved, dataset)
                assert all(bool(torch.isfinite(d).all()) for d in result.distances)
                done += reranker.last_stats.pairs
            points.append(measured())
    return {"pairs": done, **summary(points)}


def pictures(folder: Path, n_queries: int, top_n: int) -> tuple[ImageQueryGalleryLabeledDataset, RetrievalResults]:
    """Small pictures, some of which ask and have the next ``top_n`` as their candidates."""
    rng, n = np.random.default_rng(0), 50
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    frame = pd.DataFrame({"label": np.arange(n) // 2, "path": [str(folder / f"{i}.png") for i in range(n)]})
    frame = frame.assign(is_query=np.arange(n) < n_queries, is_gallery=True, split="validation")
    dataset = ImageQueryGalleryLabeledDataset(frame, transform=get_norm_resize_irt(16, 16))
    candidates = [torch.tensor([(i + 1 + j) % n for j in range(top_n)]) for i in range(n_queries)]
    distances = [torch.linspace(0.1, 1, top_n) for _ in range(n_queries)]
    return dataset, RetrievalResults(distances, candidates)


def measured() -> tuple[float, int, int]:
    """Resident memory in MB, open files, objects that can hold others: tensors too, however small."""
    gc.collect()
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])  # Linux
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd")), len(gc.get_objects())


def summary(points: list[tuple[float, int, int]]) -> Figures:
    mb, files, objects = (np.array(column) for column in zip(*points, strict=True))
    quarter = len(points) // 4

    def grown(values: np.ndarray[Any, Any]) -> float:
        return float(values[-quarter:].mean() - values[quarter : 2 * quarter].mean())

    return {
        "resident_mb": [round(value, 1) for value in mb.tolist()],
        "open_files": files.tolist(),
        "grown_mb": round(grown(mb), 1),
        "grown_files": int(files[-1] - files[0]),
        "grown_objects": round(grown(objects)),
    }


if __name__ == "__main__":
    main()
