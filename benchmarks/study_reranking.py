"""The re-ranker's part of the study: does a second look at the first candidates help after a trained first stage?

  python benchmarks/study_reranking.py --weights FILE     # after benchmarks/study.py: goes on from its first stages

1. Held out. Training labels are split into three thirds. With a third held out (``--thirds``), a first stage and pair
   models are trained on the other two; RESULTS/study_reranking.json gets each pair model's curve on queries of the
   third, which neither model has seen. The number of steps and the two numbers of fusion are chosen there.
2. Rows. The first stages of the study (the better of ``irt_l`` and ``irt_r`` in RESULTS/study_choices.json), with pair
   models trained on all training labels, re-rank every validation query: ``first_stage``, ``stir``, ``stir_fused`` and
   OML's ``concat_siamese`` in RESULTS/study.json.
3. Read off. For each λ, what it would have given on the validation queries goes to RESULTS/study_reranking.json: it
   shows what there was to gain. Nothing is chosen by it.

Photos are decoded once, in a few augmented views; with ``join_layer=k`` what
the first k blocks make of them is kept as well, and only the blocks after them are trained.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from oml.inference import inference
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.models import ConcatSiamese
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from oml.utils.misc import set_global_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

import study
from oml_vit_ext.common.files import replaced
from oml_vit_ext.reranking import FittedFusion, Fusion, STIRReranker, STIRSiamese, fit_fusion

Row = dict[str, Any]

# The pair models: how many blocks see one image alone (None: OML's model), and the learning rate of the transformer,
# which starts with the first stage's weights. On a third, the first stage is trained for ``after`` iterations: 100 are
# as many passes over its photos as 150 over all; after 30, fusion is fitted to a first stage that is too weak.
# ``kinds``: whole kinds of products are held out (apples, peppers, ...), as they are for validation; the row is that of
# the same pair models, with the other fit.
MODELS: dict[str, Row] = {
    "stir_10": {"join_layer": 10, "lr": 1e-4, "after": 100},
    "stir_10_weak": {"join_layer": 10, "lr": 1e-4, "after": 30},
    "stir_0": {"join_layer": 0, "lr": 3e-5, "after": 100},
    "stir_0_kinds": {"join_layer": 0, "lr": 3e-5, "after": 100, "kinds": True, "trained_as": "stir_0"},
    "concat_siamese": {"join_layer": None, "lr": 3e-5, "after": 100, "kinds": True},
}
THIRDS = (0, 1, 2)
GALLERY = 4  # photos of each held-out label that are searched: among all 22, hardly a first stage errs, nothing to fit
TOP_N = 5  # the paper's
ANCHORS = 16  # of a step; each with one positive and one negative
NEAREST = 5  # the positive and the negative are drawn among so many nearest of the same and of other labels
VIEWS = 2  # augmented views of each photo
HEAD_LR = 10  # times the learning rate of the transformer


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    curves, rows = args.results / "study_reranking.json", args.results / "study.json"
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        for third in args.thirds:
            for name in args.models:
                key = {"model": name, "third": third}
                if study.missing(curves, key) or not scores_file(name, third, args).is_file():
                    points = curve(name, third, args)
                    if study.missing(curves, key):
                        study.add(curves, {**key, **points})
        for name in args.models:
            if args.thirds and study.missing(curves, {"fit": name}):
                study.add(curves, {"fit": name, **fitted(name, args)})
        for seed in args.seeds:
            for name in args.models:
                method, k = method_and_k(name)
                if study.missing(rows, {"method": method, "join_layer": k, "seed": seed, "pair_model": name}):
                    for row in validated(name, seed, args):
                        if study.missing(rows, {key: row[key] for key in ("method", "pair_model", "seed")}):
                            study.add(rows, row)
                key = {"read_off": name, "seed": seed}
                if (
                    "trained_as" not in MODELS[name]
                    and study.missing(curves, key)
                    and scores_of_row(name, seed, args).is_file()
                ):
                    study.add(curves, {**key, **read_off(name, seed, args)})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a file, or a timm tag: vit_small_patch14_dinov2.lvd142m")
    parser.add_argument("--data", type=Path, default=study.ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS), help="default: all")
    parser.add_argument("--thirds", type=numbers, default=list(THIRDS), help="of the training labels (default: all)")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3], help="of the rows (default: 1,2,3)")
    parser.add_argument("--steps", type=int, default=80, help="of a curve (default: %(default)s)")
    parser.add_argument("--every", type=int, default=40, help="steps between two points of a curve")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=study.ROOT / "docs/results", help="folder")
    parser.add_argument("--checkpoints", type=Path, default=study.ROOT / "outputs/study", help="folder")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


# --- held out ---------------------------------------------------------------------------------------------------------


def curve(name: str, third: int, args: argparse.Namespace) -> Row:
    """A pair model's CMC@1 on the queries of a third, alone and with the fusion that is best there, against steps."""
    stage = first_stage_without(third, MODELS[name]["after"], args, kinds=MODELS[name].get("kinds", False))
    steps, scores, points = [], [], []
    for model, step, seconds in train(name, stage, args, seed=1, total=args.steps, every=args.every):
        found = stage.reranker(model, use_fp16=True).candidate_scores(stage.found.retrieved_ids, stage.data)
        steps.append(step)
        scores.append(torch.stack(found))
        points.append(
            {"step": step, "seconds": seconds, **summary(fit_fusion(stage.distances(), found, stage.right()))}
        )
        tqdm.write(f"{name}, third {third}: {points[-1]}")
    with replaced(scores_file(name, third, args)) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            steps=steps,
            scores=torch.stack(scores).numpy(),
            distances=torch.stack(stage.distances()).numpy(),
            right=torch.stack(stage.right()).numpy(),
        )
    return {
        "settings": MODELS[name],
        "first_stage": stage.described,
        "queries": len(found),
        "cmc1_first_stage": round(float(np.mean([bool(r[0]) for r in stage.right()])), 4),
        "points": points,
    }


def fitted(name: str, args: argparse.Namespace) -> Row:
    """Steps, λ and t with which most of the held-out queries of all thirds have a right candidate first."""
    parts = [np.load(scores_file(name, third, args)) for third in args.thirds]
    distances, right = ([torch.as_tensor(row) for p in parts for row in p[key]] for key in ("distances", "right"))
    found = {}
    for i, step in enumerate(parts[0]["steps"].tolist()):
        scores = [torch.as_tensor(row) for p in parts for row in p["scores"][i]]
        found[step] = fit_fusion(distances, scores, right)
    step = max((s for s in found if s), key=lambda s: (found[s].cmc1, -s))
    best = found[step]
    return {
        "thirds": args.thirds,
        "queries": len(right),
        "step": step,
        **summary(best),
        "curve": {str(weight): round(cmc1, 4) for weight, cmc1 in best.curve.items()},
        "points": [{"step": s, **summary(f)} for s, f in found.items()],
    }


def summary(found: FittedFusion) -> Row:
    return {
        "cmc1_pair_model": round(found.curve[0.0], 4),
        "cmc1_fused": round(found.cmc1, 4),
        "first_stage_weight": found.fusion.first_stage_weight,
        "temperature": found.fusion.temperature,
    }


def scores_file(name: str, third: int, args: argparse.Namespace) -> Path:
    return args.checkpoints / f"third{third}_{name}.npz"


def first_stage_without(third: int, iterations: int, args: argparse.Namespace, *, kinds: bool) -> FirstStage:
    """Trained on two thirds of the training labels, to search the other one."""
    part = f"{'kinds' if kinds else 'third'}{third}"
    frame, checkpoint = args.checkpoints / f"{part}.csv", args.checkpoints / f"{part}_first_stage_{iterations}.ckpt"
    method, settings = chosen_first_stage(args)
    if not frame.is_file():
        frame.parent.mkdir(parents=True, exist_ok=True)
        df = study.held_out(pd.read_csv(args.data / "df.csv"), third, by="category" if kinds else "label")
        in_gallery = df[df.split == "validation"].groupby("label").sample(GALLERY, random_state=third).index
        df.loc[df.split == "validation", "is_gallery"] = False
        df.loc[in_gallery, "is_gallery"] = True
        with replaced(frame) as unfinished:
            df.to_csv(unfinished, index=False)
    if not checkpoint.is_file():
        overrides = [f"study/method={method}", f"dataset_root={args.data.absolute()}", f"pretrained={args.weights}"]
        cfg = compose("study/train", [*overrides, *study.overrides(settings), f"dataframe_name={frame.absolute()}"])
        n_classes = study.number_of_classes(pd.read_csv(frame))
        extractor, _, _ = study.last(study.train(cfg, n_classes, iterations, iterations))
        study.keep(extractor, checkpoint)
    return FirstStage.load(checkpoint, frame, args, {"method": method, "iterations": iterations, **settings})


def chosen_first_stage(args: argparse.Namespace) -> tuple[str, Row]:
    """The better of ``irt_l`` and ``irt_r`` on held-out training labels, with its settings."""
    tries = [row for row in study.read(args.results / "study_choices.json") if row["method"] in study.LONG]
    best = max(tries, key=lambda row: (row["cmc1"], row["map5"]))
    return best["method"], best["settings"]


# --- rows -------------------------------------------------------------------------------------------------------------


def validated(name: str, seed: int, args: argparse.Namespace) -> Iterator[Row]:
    """The rows of one pair model after the study's first stage of that seed."""
    method, settings = chosen_first_stage(args)
    checkpoint = args.checkpoints / f"{method}_seed{seed}.ckpt"
    if not checkpoint.is_file():
        print(f"{name}, seed {seed}: there is no {checkpoint} yet, see benchmarks/study.py")
        return
    stage = FirstStage.load(checkpoint, args.data / "df.csv", args, {"method": method, **settings})
    if not kept(name, seed, args.steps, args).is_file():
        for model, step, seconds in train(name, stage, args, seed=seed, total=args.steps, every=args.every):
            with replaced(kept(name, seed, step, args)) as unfinished:
                torch.save({"state_dict": model.state_dict(), "seconds": seconds}, unfinished)
    fit = next((row for row in study.read(args.results / "study_reranking.json") if row.get("fit") == name), None)
    if fit is None:
        print(f"{name}, seed {seed}: nothing is fitted yet")
        return
    trained = torch.load(kept(name, seed, fit["step"], args), weights_only=True)
    model = untrained(MODELS[name], stage).eval()
    model.load_state_dict(trained["state_dict"])
    reranker = stage.reranker(model, scores_file=scores_of_row(name, seed, args))
    started = time.process_time()
    alone = reranker.process(stage.found, stage.data)
    seconds = (time.process_time() - started) / torch.get_num_threads()
    reranker.fusion = Fusion(fit["first_stage_weight"], fit["temperature"])
    fused = reranker.process(stage.found, stage.data)
    kind, k = method_and_k(name)
    shared = {"seed": seed, "join_layer": k, "pair_model": name, "first_stage": method}
    shared |= {"pairs": 2 * ANCHORS * fit["step"], "seconds": trained["seconds"], "seconds_rerank": round(seconds, 1)}
    shared["cmc1_first_stage"] = quality(stage.found)["cmc1"]  # of this very checkpoint
    of_first_stage = {"method": "first_stage", "seed": seed, "join_layer": None, "pair_model": None}
    yield {**of_first_stage, "first_stage": method, **quality(stage.found)}
    yield {"method": kind, **shared, **quality(alone), **changes(stage.found, alone)}
    yield {"method": f"{kind}_fused", **shared, **quality(fused), **changes(stage.found, fused)}


def scores_of_row(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.checkpoints / f"scores_{name}_seed{seed}.npz"


def read_off(name: str, seed: int, args: argparse.Namespace) -> Row:
    """CMC@1 of the validation queries for each λ with the best t, from the scores of the row."""
    method, settings = chosen_first_stage(args)
    checkpoint = args.checkpoints / f"{method}_seed{seed}.ckpt"
    stage = FirstStage.load(checkpoint, args.data / "df.csv", args, {"method": method, **settings})
    fit = next(row for row in study.read(args.results / "study_reranking.json") if row.get("fit") == name)
    model = untrained(MODELS[name], stage).eval()
    model.load_state_dict(torch.load(kept(name, seed, fit["step"], args), weights_only=True)["state_dict"])
    reranker = stage.reranker(model, scores_file=scores_of_row(name, seed, args))
    found = fit_fusion(
        stage.distances(), reranker.candidate_scores(stage.found.retrieved_ids, stage.data), stage.right()
    )
    reachable = float(np.mean([bool(right.any()) for right in stage.right()]))
    curve = {str(weight): round(cmc1, 4) for weight, cmc1 in found.curve.items()}
    return {"reachable": round(reachable, 4), "curve": curve}


def kept(name: str, seed: int, step: int, args: argparse.Namespace) -> Path:
    return args.checkpoints / f"pair_{MODELS[name].get('trained_as', name)}_seed{seed}_step{step}.ckpt"


def method_and_k(name: str) -> tuple[str, int | None]:
    return ("stir" if name.startswith("stir") else name), MODELS[name]["join_layer"]


def quality(found: RetrievalResults) -> Row:
    values = calc_retrieval_metrics_rr(found, cmc_top_k=(1, 10), map_top_k=(5,), precision_top_k=(), verbose=False)
    figures = {"cmc1": values["cmc"][1], "cmc10": values["cmc"][10], "map5": values["map"][5]}
    return {key: round(float(value), 4) for key, value in figures.items()}


def changes(before: RetrievalResults, after: RetrievalResults) -> Row:
    """For how many queries the first hit became right, and for how many wrong."""
    was, now = (
        np.array([bool(torch.isin(ids[:1], gt)) for ids, gt in zip(rr.retrieved_ids, rr.gt_ids, strict=True)])
        for rr in (before, after)
    )
    return {"became_right": int((now & ~was).sum()), "became_wrong": int((was & ~now).sum())}


# --- first stage ------------------------------------------------------------------------------------------------------


@dataclass
class FirstStage:
    """A trained first stage: what it finds for the queries, and how alike it finds the training photos."""

    checkpoint: Path
    described: Row
    cfg: DictConfig
    data: Any
    found: RetrievalResults
    similarity: Tensor  # (N, N), of the training photos
    labels: Tensor  # (N,)

    @classmethod
    def load(cls, checkpoint: Path, frame: Path, args: argparse.Namespace, described: Row) -> FirstStage:
        given = [f"dataset_root={args.data.absolute()}", f"dataframe_name={frame.absolute()}", "checkpoint=none"]
        cfg = compose("stir/validate_reranker_photos", [*given, f"first_stage_checkpoint='{checkpoint.absolute()}'"])
        transform = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_val, resolve=True))
        train_data, data = study.get_retrieval_images_datasets(
            Path(cfg.dataset_root), transform, transform, dataframe_name=cfg.dataframe_name
        )
        extractor = get_extractor_by_cfg(OmegaConf.to_container(cfg.extractor, resolve=True)).eval()
        of_queries = inference(extractor, data, cfg.bs_val, num_workers=0)
        with torch.autocast("cpu", torch.bfloat16):  # for drawing pairs alone
            of_train = inference(extractor, train_data, cfg.bs_val, num_workers=0).float()
        found = RetrievalResults.from_embeddings(of_queries, data, n_items=10)
        labels = torch.as_tensor(train_data.get_labels())
        return cls(checkpoint, described, cfg, data, found, of_train @ of_train.T, labels)

    def reranker(self, model: Any, **settings: Any) -> STIRReranker:
        return STIRReranker(TOP_N, model, num_workers=0, batch_size=64, **settings)

    def distances(self) -> list[Tensor]:
        return [d[:TOP_N].float() for d in self.found.distances]

    def right(self) -> list[Tensor]:
        """Per query whether each of its first candidates belongs to the ground truth."""
        pairs = zip(self.found.retrieved_ids, self.found.gt_ids, strict=True)
        return [torch.isin(ids[:TOP_N], gt) for ids, gt in pairs]


# --- pair models ------------------------------------------------------------------------------------------------------


def train(
    name: str, stage: FirstStage, args: argparse.Namespace, *, seed: int, total: int, every: int
) -> Iterator[tuple[Any, int, float]]:
    """Yield pair model, steps and processor seconds, at the start and every ``every`` steps."""
    set_global_seed(seed)
    started = time.process_time()
    settings = MODELS[name]
    model = untrained(settings, stage)
    read, learning = what_is_read_and_what_learns(model, views(stage))
    forward = model.score if read.ndim == 4 else model  # (views, photos, tokens, D), or photos as they are
    optimizer = torch.optim.AdamW(
        [
            {"params": learning, "lr": settings["lr"]},
            {"params": model.head.parameters(), "lr": HEAD_LR * settings["lr"]},
        ],
        weight_decay=5e-4,
    )
    warming_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    generator = torch.Generator().manual_seed(seed)
    different = torch.cat([torch.zeros(ANCHORS), torch.ones(ANCHORS)])
    used = time.process_time() - started
    yield model.eval(), 0, 0.0
    for first in range(0, total, every):
        started = time.process_time()
        model.train()
        for _ in tqdm(range(first, first + every), desc=f"{name}, seed {seed}", mininterval=20):
            photos = draw_pairs(stage, generator)
            view = torch.randint(VIEWS, (2, len(different)), generator=generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = forward(read[view[0], photos[0]], read[view[1], photos[1]])
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), different)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            warming_up.step()
        used += time.process_time() - started
        yield model.eval(), first + every, round(used / torch.get_num_threads(), 1)


def untrained(settings: Row, stage: FirstStage) -> Any:
    """A pair model whose transformer starts with the first stage's weights."""
    content: Any = OmegaConf.to_container(stage.cfg.postprocessor.args.pairwise_model.args.extractor, resolve=True)
    content["args"]["weights"] = str(stage.checkpoint)
    extractor, k = get_extractor_by_cfg(content), settings["join_layer"]
    return ConcatSiamese(extractor, [192]) if k is None else STIRSiamese(extractor, [192], join_layer=k)


def views(stage: FirstStage) -> Tensor:
    """Augmented views of the training photos, each decoded once. -> ``(VIEWS, N, 3, H, W)``"""
    cfg = compose("stir/train_reranker_photos", ["first_stage_checkpoint=none"])
    transform = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_train, resolve=True))
    data, _ = study.get_retrieval_images_datasets(
        Path(stage.cfg.dataset_root), transform, transform, dataframe_name=stage.cfg.dataframe_name
    )
    return torch.stack([torch.stack([data[i][data.input_tensors_key] for i in range(len(data))]) for _ in range(VIEWS)])


def what_is_read_and_what_learns(model: Any, photos: Tensor) -> tuple[Tensor, list[nn.Parameter]]:
    """What a step reads of each view, and the transformer's parameters that it changes.

    With k > 0, what the first k blocks give, ``(VIEWS, N, T, D)``, and the blocks after them; else photos, and all.
    """
    if not isinstance(model, STIRSiamese) or model.join_layer == 0:
        return photos, list(model.extractor.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoded = torch.cat([model.eval().encode(part) for part in photos.flatten(0, 1).split(64)])
    backbone = model.extractor.backbone
    learning = [*backbone.blocks[model.join_layer :].parameters(), *backbone.norm.parameters()]
    return encoded.float().unflatten(0, photos.shape[:2]), learning


def draw_pairs(stage: FirstStage, generator: torch.Generator) -> Tensor:
    """``(2, 2 * ANCHORS)``: anchors with a positive, then with a negative, each among the first stage's nearest."""
    anchors = torch.randperm(len(stage.labels), generator=generator)[:ANCHORS]
    similarity = stage.similarity[anchors].scatter(1, anchors[:, None], -torch.inf)  # not with itself
    same = stage.labels[anchors][:, None] == stage.labels
    partners = []
    for mask in (same, ~same):
        nearest = similarity.masked_fill(~mask, -torch.inf).topk(NEAREST, dim=1).indices
        chosen = torch.randint(NEAREST, (ANCHORS, 1), generator=generator)
        partners.append(nearest.gather(1, chosen)[:, 0])
    return torch.stack([anchors.repeat(2), torch.cat(partners)])


if __name__ == "__main__":
    main()
