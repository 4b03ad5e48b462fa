"""Images per second and peak memory of the extractors beside the bare timm model and OML's, in one run.

Inference, from a batch in memory to embeddings, random weights. ``irt`` stands beside the same transformer of timm
(its classifier taken off, so that it ends with the CLS token) and beside OML's ``vit`` of the same size;
``hybrid_vit`` beside its bare transformer, with one switch more in every row. Methods take turns, so that a busy
machine slows them all, and every turn starts with another one; times are medians, ratios are medians of the ratios
within a turn. ``--compile`` sends every model through ``torch.compile``.

    python benchmarks/bench_extractors.py                       # some ten minutes on two idle cores
    python benchmarks/bench_extractors.py --quick               # a minute: ViT-S only, small images
    python benchmarks/bench_extractors.py --device cuda --dtype bfloat16 --compile
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from oml.models import ViTExtractor
from torch import Tensor, nn
from tqdm import tqdm

from json_file import write_json
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from step_cost import Step, peak_extra_mb, seconds

Build = Callable[[str], nn.Module]

IRT: dict[str, Build] = {
    "timm": lambda arch: timm.create_model(arch, num_classes=0),
    "timm, dynamic_img_size": lambda arch: timm.create_model(arch, num_classes=0, dynamic_img_size=True),
    "irt": lambda arch: IRTExtractor(None, arch),
    "OML vit (vits16)": lambda _: ViTExtractor(None, "vits16", normalise_features=True),
}
HYBRID: dict[str, Build] = {
    "timm": lambda arch: timm.create_model(arch, num_classes=0),
    "timm, dynamic_img_size": lambda arch: timm.create_model(arch, num_classes=0, dynamic_img_size=True),
    "hybrid_vit, global, n_layers 1": lambda arch: hybrid(arch, branches="global", n_layers=1),
    "hybrid_vit, both, n_layers 1": lambda arch: hybrid(arch, n_layers=1),
    "hybrid_vit, both, n_layers 6": lambda arch: hybrid(arch),
    "hybrid_vit, both, n_layers 6, locality": lambda arch: hybrid(arch, enhanced_locality=True),
}
# Methods, arch, side in pixels, batch sizes.
TABLES: dict[str, tuple[dict[str, Build], str, int, tuple[int, ...]]] = {
    "irt": (IRT, "deit_small_patch16_224", 224, (1, 32)),
    "hybrid_small": (HYBRID, "vit_small_r26_s32_224", 224, (1, 32)),
    "hybrid_base": (HYBRID, "vit_base_r50_s16_384", 384, (1, 32)),
}
QUICK = {"irt": (IRT, "deit_small_patch16_224", 224, (1, 8)), "hybrid": (HYBRID, "vit_small_r26_s32_224", 224, (1, 8))}


def hybrid(arch: str, enhanced_locality: bool = False, **switches: Any) -> nn.Module:
    return HybridViTExtractor(None, arch, enhanced_locality=enhanced_locality, **switches)


def step_of(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Step:
    def step() -> Tensor:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return model(images)

    return step


COLUMNS = {
    "images_per_s": "images/s",
    "ratio_to_timm": "time x timm",
    "ratio_to_oml": "time x OML",
    "peak_extra_mb": "peak extra, MB",
}


def measure(steps: dict[str, Step], batch: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every figure of one table; ``timm`` is among the steps."""
    first = sum(seconds(step, args.device) for step in steps.values())  # warms up, and compiles
    again = sum(seconds(step, args.device) for step in steps.values())
    rounds = max(args.min_rounds, min(args.rounds, round(args.seconds / min(first, again))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in tqdm(range(rounds), desc=f"batch {batch}", leave=False):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(seconds(steps[name], args.device))
    result = {}
    for name, step in steps.items():
        result[name] = {
            "images_per_s": batch / statistics.median(times[name]),
            "ratio_to_timm": statistics.median(a / b for a, b in zip(times[name], times["timm"], strict=True)),
            "peak_extra_mb": peak_extra_mb(step, args.device),
            "rounds": rounds,
        }
        if "OML vit (vits16)" in steps:
            oml = times["OML vit (vits16)"]
            result[name]["ratio_to_oml"] = statistics.median(a / b for a, b in zip(times[name], oml, strict=True))
    return result


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    first = next(iter(rows.values()))
    print(f"\n{title}, {first['rounds']} rounds")
    table = pd.DataFrame(rows, index=[name for name in COLUMNS if name in first]).T.rename(columns=COLUMNS)
    print(table.to_string(float_format="{:.3f}".format), flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="default: all")
    parser.add_argument("--batches", type=int, nargs="+", help="images at once (default: 1 32)")
    parser.add_argument("--side", type=int, help="of the images, in px (default: the arch's own)")
    parser.add_argument("--quick", action="store_true", help="ViT-S only, batches 1 and 8")
    parser.add_argument("--rounds", type=int, default=41, help="turns at most (default: %(default)s)")
    parser.add_argument("--min-rounds", type=int, default=3, help="turns at least (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="for each table, roughly (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
    parser.add_argument("--compile", action="store_true", help="all models through torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.getLogger("oml_vit_ext").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    compiled = ", compiled" if args.compile else ""
    print(
        f"{args.dtype}{compiled}, {args.threads} threads, torch {torch.__version__}, timm {timm.__version__}, {device}"
    )
    tables = QUICK if args.quick else {name: TABLES[name] for name in args.tables}
    results: dict[str, Any] = {}
    for table, (methods, arch, side, batches) in tables.items():
        models = {name: build(arch).eval().to(args.device) for name, build in methods.items()}
        if args.compile:
            models = {name: torch.compile(model) for name, model in models.items()}  # type: ignore[misc]
        for batch in args.batches or batches:
            images = torch.randn(batch, 3, args.side or side, args.side or side, device=args.device)
            steps = {name: step_of(model, images, getattr(torch, args.dtype)) for name, model in models.items()}
            results[f"{table}, batch {batch}"] = measure(steps, batch, args)
            print_table(f"{arch}, {images.shape[-1]} px, batch {batch}", results[f"{table}, batch {batch}"])
    if args.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        write_json(args.json, {"settings": settings, "device": device, "torch": torch.__version__, "tables": results})


if __name__ == "__main__":
    main()
