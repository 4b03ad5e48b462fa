"""One training step of the contrastive loss over a cross-batch memory: ours, its peers and the floor, in one run.

The floor is the product of batch and memory, and the product that forms the gradient. On the CPU our loss leaves
columns without any gradient out of the second one, so how much of it remains depends on the data: beside the usual
margin there is the worst case, where nearly every negative pair is active. Each step is forward and backward, from raw
features to their gradient, with the memory full. Methods take turns, so that a busy machine slows them all; times are
medians, ratios are medians of the ratios within a turn. OML's miner needs tens of seconds per step at SOP's size: it
has the smallest size only.

    python benchmarks/bench_losses.py                     # about a minute on two idle cores
    python benchmarks/bench_losses.py --large             # up to a million entries (3 GB of memory)
    python benchmarks/bench_losses.py --device cuda --dtype bfloat16
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from oml.losses.triplet import TripletLossWithMiner
from oml.miners.cross_batch import TripletMinerWithMemory
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import Tensor

from json_file import write_json
from oml_vit_ext.losses import ContrastiveXBMLoss
from step_cost import Step, peak_extra_mb, seconds

SOP_SIZE, SOP_CLASSES = 59_551, 11_318
SIZES = (4_096, 16_384, SOP_SIZE, 262_144)
LARGE = 1_048_576
# Beyond these sizes the peers need gigabytes of index tensors, or minutes.
LARGEST = {"pml": SOP_SIZE, "oml": SIZES[0]}
MARGIN = 0.5


class Problem:
    """Random features around a common direction, so that some negatives pass the margin, as in training."""

    def __init__(self, batch: int, size: int, dim: int, device: str, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        centre = torch.randn(dim, generator=generator) * 0.8
        memory = torch.randn(size, dim, generator=generator).add_(centre)
        self.memory = torch.nn.functional.normalize(memory).to(device)
        self.memory_labels = torch.randint(SOP_CLASSES, (size,), generator=generator).to(device)
        features = torch.randn(batch, dim, generator=generator) + centre
        self.features = features.to(device, dtype).requires_grad_()
        self.labels = torch.randint(SOP_CLASSES, (batch // 2,), generator=generator).repeat_interleave(2).to(device)

    def backward(self, loss: Tensor) -> Tensor:
        self.features.grad = None
        loss.backward()
        return loss


def floor(p: Problem) -> Step:
    z = torch.nn.functional.normalize(p.features.detach().float())
    return lambda: (p.memory @ z.T).T @ p.memory


def floor_rows(p: Problem) -> Step:
    z = torch.nn.functional.normalize(p.features.detach().float())
    return lambda: (z @ p.memory.T) @ p.memory


def ours(p: Problem, reduction: str = "anchors", margin: float = MARGIN) -> Step:
    criterion = ContrastiveXBMLoss(margin, memory_size=len(p.memory), reduction=reduction)
    criterion.memory.enqueue(p.memory, p.memory_labels)
    return lambda: p.backward(criterion(p.features, p.labels))


def dense(p: Problem) -> Step:
    def step() -> Tensor:
        z = torch.nn.functional.normalize(p.features.float())
        total = torch.zeros((), device=z.device)
        for columns, labels in ((p.memory, p.memory_labels), (z, p.labels)):
            s = z @ columns.T
            same = p.labels[:, None] == labels
            loss = torch.where(same, 1 - s, (s - MARGIN).clamp(min=0))
            if columns is z:
                loss = loss.fill_diagonal_(0)
            total = total + loss.sum() / len(z)
        return p.backward(total)

    return step


def pml(p: Problem) -> Step:
    loss = ContrastiveLoss(pos_margin=1, neg_margin=MARGIN, distance=CosineSimilarity())
    criterion = CrossBatchMemory(loss, p.memory.shape[1], len(p.memory)).to(p.memory.device)
    criterion.add_to_memory(p.memory, p.memory_labels, len(p.memory))
    return lambda: p.backward(criterion(p.features.float(), p.labels))


def oml_triplet(p: Problem) -> Step:
    batch = len(p.features)
    miner = TripletMinerWithMemory(bank_size_in_batches=len(p.memory) // batch, tri_expand_k=2)
    criterion = TripletLossWithMiner(margin=0.15, miner=miner)
    for start in range(0, miner.bank_size_in_batches * batch, batch):
        rows = slice(start, start + batch)
        if start == 0:
            miner.sample(p.memory[rows], p.labels)  # allocates the bank
            miner.ptr = 0
        miner.update_bank(p.memory[rows], p.memory_labels[rows])
    return lambda: p.backward(criterion(p.features, p.labels))


METHODS: dict[str, tuple[str, Callable[[Problem], Step]]] = {
    "floor": ("two matrix products (the floor)", floor),
    "floor_rows": ("the same, batch first", floor_rows),
    "ours": ("contrastive_xbm", ours),
    "ours_all_active": ("contrastive_xbm, all negatives active", lambda p: ours(p, margin=0.0)),
    "ours_nonzero": ("contrastive_xbm, nonzero_pairs", lambda p: ours(p, "nonzero_pairs")),
    "dense": ("plain dense", dense),
    "pml": ("pytorch-metric-learning CrossBatchMemory", pml),
    "oml": ("OML TripletMinerWithMemory", oml_triplet),
}

COLUMNS = {
    "median_ms": "median, ms",
    "ratio_to_floor": "x floor",
    "ratio_to_ours": "x ours",
    "peak_extra_mb": "peak extra, MB",
}


def median_ratio(times: list[float], base: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(times, base, strict=False))


def measure(names: list[str], size: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    problem = Problem(args.batch, size, args.dim, args.device, getattr(torch, args.dtype))
    steps = {name: METHODS[name][1](problem) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for name, step in steps.items():
        first = seconds(step, args.device)
        if first > args.patience_s:  # too slow to take turns: this one figure must do
            times[name] = [first]
    for _ in range(args.rounds):
        for name, step in steps.items():
            if not (len(times[name]) == 1 and times[name][0] > args.patience_s):
                times[name].append(seconds(step, args.device))
    base = "floor"
    if "floor_rows" in times and statistics.median(times["floor_rows"]) < statistics.median(times["floor"]):
        base = "floor_rows"
    result = {}
    for name, step in steps.items():
        result[name] = {
            "median_ms": 1e3 * statistics.median(times[name]),
            "ratio_to_floor": median_ratio(times[name], times[base]),
            "ratio_to_ours": median_ratio(times[name], times["ours"]),
            "peak_extra_mb": peak_extra_mb(step, args.device),
            "rounds": len(times[name]),
        }
    return result


def print_table(size: int, rows: dict[str, dict[str, float]]) -> None:
    print(f"\nmemory of {size:,} embeddings".replace(",", " "))
    table = pd.DataFrame(rows, index=list(COLUMNS)).T
    table = table.rename(columns=COLUMNS, index={name: title for name, (title, _) in METHODS.items()})
    print(table.to_string(float_format="{:.2f}".format))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="anchors per step (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="dimension of the embeddings (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"memory sizes (default: {' '.join(map(str, SIZES))})")
    parser.add_argument("--large", action="store_true", help=f"also a memory of {LARGE} embeddings")
    parser.add_argument("--rounds", type=int, default=15, help="turns that each method takes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the embeddings"
    )
    parser.add_argument(
        "--patience-s", type=float, default=3.0, help="a method slower than this is timed once (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    sizes = args.sizes or [*SIZES, *([LARGE] if args.large else [])]
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    print(
        f"batch {args.batch}, dim {args.dim}, {args.dtype}, {args.threads} threads, torch {torch.__version__}, {device}"
    )
    results = {}
    for size in sizes:
        names = [name for name in METHODS if size <= LARGEST.get(name, size)]
        if args.device == "cuda":
            names = [name for name in names if name != "oml"]  # it works on the CPU only
        results[size] = measure(names, size, args)
        print_table(size, results[size])
    print("\nslope of contrastive_xbm: ns per memory entry and step")
    for size, rows in results.items():
        print(f"  {size:>9}  {rows['ours']['median_ms'] * 1e6 / size:7.0f}")
    if args.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        write_json(args.json, {"settings": settings, "device": device, "torch": torch.__version__, "sizes": results})


if __name__ == "__main__":
    main()
