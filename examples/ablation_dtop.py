"""What each contribution of DToP brings: one short training for each variant and seed, then a table of mean ± sd.

Every run goes through OML's pipelines with the configs ``dtop/train_<data>`` and ``dtop/validate_<data>`` and
leaves one row in OUTPUT/ablation.csv. Call it again to go on: rows that are there with the same settings are not run
again.

  python examples/ablation_dtop.py                                # the bundled pictures, from scratch
  python examples/ablation_dtop.py --data grocery --variants hybrid,local,multi_layer,full --seeds 1,2 \\
      dataset_root=DIR hybrid.pretrained=FILE                     # Hydra overrides, last
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_module
from oml.lightning.pipelines.train import extractor_training_pipeline
from oml.lightning.pipelines.validate import extractor_validation_pipeline

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.screen import quieten
from oml_vit_ext.oml_patches import read_all_upright
from tools.folders import ROOT, in_folder
from tools.overrides import known_to
from tools.results_table import Row, run_missing, spread

VARIANTS = {
    "plain": "plain ViT, CLS",
    "hybrid": "+ convolutional stem",
    "local": "+ local branch",
    "multi_layer": "+ several layers",
    "full": "+ enhanced locality",
}


def main() -> None:
    args = parse_arguments()
    quieten()
    read_all_upright()
    output = args.output.absolute()
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        iterations = args.iterations or compose(f"dtop/train_{args.data}", args.overrides).iterations
        shared = {"data": args.data, "iterations": iterations, "overrides": " ".join(args.overrides)}
        wanted = [{"variant": v, "seed": s, **shared} for s in args.seeds for v in args.variants]
        rows = run_missing(
            wanted,
            output / "ablation.csv",
            output / "log.txt",
            lambda setting, folder: run(setting, args.overrides, folder),
            unit="ablation",
        )
    print(table(rows, args.variants))
    print(f"\n  all figures  {output / 'ablation.csv'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo", help="demo or grocery (default: %(default)s)")
    parser.add_argument(
        "--variants",
        type=lambda text: text.split(","),
        default=",".join(VARIANTS),
        help="in this order (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=lambda text: [int(part) for part in text.split(",")],
        default="1,2,3",
        help="one run each (default: %(default)s)",
    )
    parser.add_argument("--iterations", type=int, help="iterations of each training (default: that of the config)")
    parser.add_argument("--output", type=Path, default=Path("outputs/ablation"), help="folder (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the configs")
    args = parser.parse_intermixed_args()
    for variant in args.variants:
        if variant not in VARIANTS:
            parser.error(f"unknown variant {variant!r}, expected some of {', '.join(VARIANTS)}")
    return args


def run(setting: Row, overrides: list[str], folder: Path) -> Row:
    """Train and validate one setting in ``folder``; returns its figures."""
    started = time.perf_counter()
    variant = f"dtop/variant={setting['variant']}"
    training = [variant, f"iterations={setting['iterations']}", f"seed={setting['seed']}", *overrides]
    with in_folder(folder):
        extractor_training_pipeline(prepared(f"dtop/train_{setting['data']}", training))
        trained = time.perf_counter()
        validation = [variant, "checkpoint=checkpoints/best.ckpt"]
        name = f"dtop/validate_{setting['data']}"
        validation += known_to(name, overrides)
        _, logs = extractor_validation_pipeline(prepared(name, validation))
    figures = {
        name: round(logs[0][f"OVERALL/{key}"], 4)
        for name, key in {"cmc_1": "cmc/1", "cmc_10": "cmc/10", "map_5": "map/5"}.items()
    }
    return {**figures, "training_s": round(trained - started, 1)}


def prepared(name: str, overrides: list[str]) -> dict:
    """The composed config; relative paths of the data count from the project's folder, the checkpoint's from here."""
    cfg = compose(name, overrides)
    here = Path.cwd()
    with in_folder(ROOT):
        checkpoint = cfg.get("checkpoint")
        if checkpoint and "validate" in name:
            cfg.checkpoint = str(here / checkpoint)
        return with_absolute_paths(cfg)


def table(rows: pd.DataFrame, variants: list[str]) -> str:
    """One line per variant: mean and standard deviation over the seeds."""
    columns = {"cmc_1": "CMC@1", "cmc_10": "CMC@10", "map_5": "MAP@5"}
    by_variant = {variant: rows[rows.variant == variant] for variant in variants}
    lines = [{t: spread(of[c], digits=3) for c, t in columns.items()} | {"runs": len(of)} for of in by_variant.values()]
    return pd.DataFrame(lines, index=[VARIANTS[variant] for variant in by_variant]).to_string()


if __name__ == "__main__":
    main()
