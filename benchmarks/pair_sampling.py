"""Which pairs should a re-ranker train on? Random ones of a few labels, or near ones, on held-out training labels.

  python benchmarks/pair_sampling.py                    # everything that is missing in docs/results/pair_sampling.json
  python benchmarks/pair_sampling.py --only nearest_pairs --join-layers 10

Three times a third of the bundled photos' training labels, whole kinds of products, is held out. First stage and pair
models are trained on the others as the demo trains them, through OML's pipeline, and re-rank every query of the third.
Both samplers give batches of 32 photos, of which OML's miner makes the pairs. No validation label takes part.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import initialize_config_module
from omegaconf import OmegaConf

import study
from oml_vit_ext.commands.fit_fusion import Candidates, candidates_of
from oml_vit_ext.commands.screen import quieten
from oml_vit_ext.datasets import hold_out
from oml_vit_ext.reranking import fit_fusion

sys.path.insert(0, str(study.ROOT / "examples"))

from demo import FIRST_STAGE, ITERATIONS, SMALL_EPOCHS, reranker_configs, trained
from fit_demo_fusion import GALLERY, PARTS
from tools.demo_runs import train_reranker
from tools.folders import in_folder

SAMPLERS: dict[str, Any] = {
    "balance": {"name": "balance", "args": {"n_labels": 16, "n_instances": 2}},
    "nearest_pairs": {"name": "nearest_pairs", "args": {"n_anchors": 8}},
}
LABELS_OF_AN_ITERATION = {"balance": 16, "nearest_pairs": 8}  # an epoch takes each label once
STEPS = {0: 80, 10: 53}  # by join_layer; of the latter as many as the demo's


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    quieten()
    torch.set_num_threads(args.threads)
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(study.ROOT):
        for join_layer in args.join_layers:
            for name in args.only or SAMPLERS:
                key = {"sampler": name, "join_layer": join_layer}
                if study.missing(args.output, key):
                    study.add(args.output, {**key, **row(name, join_layer, args)})
    for found in study.read(args.output):
        print(found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=study.ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(SAMPLERS)}")
    parser.add_argument("--join-layers", type=lambda text: [int(k) for k in text.split(",")], default=[10, 0])
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--models", type=Path, default=study.ROOT / "outputs/pair_sampling", help="folder")
    parser.add_argument("--output", type=Path, default=study.ROOT / "docs/results/pair_sampling.json")
    return parser.parse_args()


def row(name: str, join_layer: int, args: argparse.Namespace) -> dict[str, Any]:
    started = time.process_time()
    parts = [candidates(part, name, join_layer, args) for part in range(1, PARTS + 1)]
    together = Candidates(*(list(chain(*of_parts)) for of_parts in zip(*parts, strict=True)))
    fitted = fit_fusion(*together)
    return {
        "settings": SAMPLERS[name]["args"],
        "steps": STEPS[join_layer],
        "queries": len(together.scores),
        "cmc1_first_stage": round(float(np.mean([bool(right[0]) for right in together.right])), 4),
        "cmc1_pair_model": round(fitted.curve[0.0], 4),
        "cmc1_fused": round(fitted.cmc1, 4),
        "first_stage_weight": fitted.fusion.first_stage_weight,
        "temperature": fitted.fusion.temperature,
        "seconds": round((time.process_time() - started) / torch.get_num_threads(), 1),
    }


def candidates(part: int, name: str, join_layer: int, args: argparse.Namespace) -> Candidates:
    """What a pair model says of the first candidates of the held-out queries of one part."""
    data, folder = args.data.absolute(), args.models.absolute() / f"part_{part}"
    folder.mkdir(parents=True, exist_ok=True)
    frame = folder / "held_out.csv"
    hold_out(data / "df.csv", frame, every=PARTS, by="category", part=part, gallery=GALLERY)
    overrides = [f"dataset_root='{data}'", f"dataframe_name='{frame}'", *SMALL_EPOCHS]
    checkpoint = folder / FIRST_STAGE / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        trained(FIRST_STAGE, round(ITERATIONS * (PARTS - 1) / PARTS), overrides, folder / FIRST_STAGE)
    training, validation = reranker_configs(checkpoint, 1, [*overrides, f"join_layer={join_layer}"])
    n_labels = pd.read_csv(frame).query("split == 'train'").label.nunique()
    training.sampler = OmegaConf.create(SAMPLERS[name])
    training.max_epochs = STEPS[join_layer] // (n_labels // LABELS_OF_AN_ITERATION[name])
    training.valid_period = 10**6  # never: what it would tell is computed below
    best = train_reranker(training, folder / f"{name}_{join_layer}")
    validation.checkpoint = str(best.with_name("last.ckpt"))  # nothing is validated, so none is the best
    return candidates_of(validation)


if __name__ == "__main__":
    main()
