"""Trains IRT_L and IRT_R on the bundled pictures, validates both and the starting point, and shows what they find.

Everything runs through OML's pipelines with the configs ``irt/train_demo`` and ``irt/validate_demo``: what you see
here is what your own data would go through.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from oml.lightning.callbacks.metric import MetricValCallback
from oml.lightning.pipelines.train import extractor_training_pipeline
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from torch import Tensor

from absolute_paths import with_absolute_paths
from demo_pictures import draw_retrieval, draw_spectrum
from folders import in_folder

ROOT = Path(__file__).parent.parent


@dataclass
class Validated:
    """One row of the table, and what the pictures need."""

    name: str
    cmc_1: float
    cmc_10: float
    map_5: float
    dims_90: int  # dimensions that carry 90 % of the variance
    embeddings: Tensor  # (images, D)
    retrieved: list[list[int]]  # per query, nearest first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for models and pictures")
    parser.add_argument("--iterations", type=int, help="iterations of each training (default: that of the config)")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/demo_data", help="folder with df.csv")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. optimizer.args.lr=1e-4 memory_size=0")
    args = parser.parse_intermixed_args()
    quieten()

    started = time.perf_counter()
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    overrides = [f"dataset_root={args.data.absolute()}", *args.overrides]
    training = overrides + ([f"iterations={args.iterations}"] if args.iterations else [])

    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        checking = for_validation(overrides)
        rows = [validate("starting point", ["irt/variant=irt_o", *checking], output)]
        for variant, name in (("irt_l", "IRT_L"), ("irt_r", "IRT_R")):
            checkpoint = train(variant, training, output / variant)
            rows.append(validate(name, [f"irt/variant={variant}", f"checkpoint='{checkpoint}'", *checking], output))

    say(f"Emoji never seen in training: {len(rows[0].retrieved)} queries, each drawing against all others")
    print(table(rows))
    write_json(rows, output / "results.json")
    df = pd.read_csv(args.data / "df.csv")
    df = df[df.split == "validation"].reset_index(drop=True)
    draw_retrieval({r.name: r.retrieved for r in rows}, df, args.data, output / "retrieval.png")
    draw_spectrum({r.name: r.embeddings for r in rows}, output / "spectrum.png")
    print(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes.")
    print(f"  query -> top 5           {output / 'retrieval.png'}")
    print(f"  how many dimensions live {output / 'spectrum.png'}")
    print(f"  the models               {output / 'irt_l'}, {output / 'irt_r'}: checkpoints/best.ckpt")


def train(variant: str, overrides: list[str], folder: Path) -> Path:
    """Train one variant with OML's pipeline in ``folder``; returns its checkpoint."""
    cfg = with_absolute_paths(compose("irt/train_demo", [f"irt/variant={variant}", *overrides]))
    say(f"Training {variant.upper()}: {cfg.iterations} iterations")
    best = folder / "checkpoints" / "best.ckpt"
    best.unlink(missing_ok=True)  # Lightning would keep it and write best-v1.ckpt
    with in_folder(folder), without_config_dump():
        extractor_training_pipeline(cfg)
    return best


def validate(name: str, overrides: list[str], folder: Path) -> Validated:
    """Validate with OML's pipeline and collect the figures."""
    cfg = with_absolute_paths(compose("irt/validate_demo", overrides))
    say(f"Validating {name}")
    with in_folder(folder), without_config_dump():
        trainer, logs = extractor_validation_pipeline(cfg)
    metric = next(c for c in trainer.callbacks if isinstance(c, MetricValCallback)).metric
    embeddings = metric.acc.storage[metric._acc_embeddings_key]
    figures = {key.removeprefix("OVERALL/"): value for key, value in logs[0].items()}
    return Validated(
        name=name,
        cmc_1=figures["cmc/1"],
        cmc_10=figures["cmc/10"],
        map_5=figures["map/5"],
        dims_90=round(figures["pcf/0.9"] * embeddings.shape[1]),
        embeddings=embeddings,
        retrieved=[ids.tolist() for ids in metric.retrieval_results.retrieved_ids],
    )


def for_validation(overrides: list[str]) -> list[str]:
    """Those that say something about the model or the data: the validation config knows no optimizer, for instance."""
    known = compose("irt/validate_demo")
    keys = [parsed.key_or_group.split(".")[0] for parsed in OverridesParser.create().parse_overrides(overrides)]
    return [override for override, key in zip(overrides, keys, strict=True) if key in known]


def table(rows: list[Validated]) -> str:
    lines = [f"{'':16} {'CMC@1':>7} {'CMC@10':>7} {'MAP@5':>7} {'dims for 90 %':>14}"]
    for r in rows:
        dims = f"{r.dims_90} of {r.embeddings.shape[1]}"
        lines.append(f"{r.name:16} {r.cmc_1:7.3f} {r.cmc_10:7.3f} {r.map_5:7.3f} {dims:>14}")
    return "\n".join(lines)


def write_json(rows: list[Validated], path: Path) -> None:
    content = {r.name: {k: getattr(r, k) for k in ("cmc_1", "cmc_10", "map_5", "dims_90")} for r in rows}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, path)


def say(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)


@contextlib.contextmanager
def without_config_dump() -> Iterator[None]:
    """OML prints the whole config first; the demo leaves the screen to progress and results."""
    import oml.lightning.pipelines.train as oml_train
    import oml.lightning.pipelines.validate as oml_validate

    modules = (oml_train, oml_validate)
    before = [m.pprint for m in modules]
    for m in modules:
        m.pprint = lambda *_: None
    try:
        yield
    finally:
        for m, pprint in zip(modules, before, strict=True):
            m.pprint = pprint


def quieten() -> None:
    """Leave progress bars and results on the screen."""
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
