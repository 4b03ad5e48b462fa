"""The re-ranker's part of the study: does a second look at the first candidates help after a trained first stage?

  python benchmarks/study_reranking.py --weights FILE     # after benchmarks/study.py, whose first stages it goes on from

1. Held out. Training labels are split into three thirds. With each third held out, a first stage and pair models
   are trained on the other two; RESULTS/study_reranking.json gets each pair model's curve on queries of the third, which
   neither model has seen. Steps, learning rate and the two numbers of fusion are chosen there, over the queries of all
   thirds together.
2. Rows. The first stages of the study (the better of ``irt_l`` and ``irt_r`` in RESULTS/study_choices.json), with pair
   models trained on all training labels, re-rank every validation query: ``first_stage``, ``stir``, ``stir_fused`` and
   OML's ``concat_siamese`` in RESULTS/study.json.

A pair model sees as many pairs with and without our parts. Photos are decoded once, in a few augmented views; with
``join_layer=k`` what the first k blocks make of them is kept as well, and only the blocks after them are trained.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from oml.inference import inference
from oml.registry.models import get_extractor_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from oml.utils.misc import set_global_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

import study
from oml_vit_ext.common.files import replaced
from oml_vit_ext.reranking import FittedFusion, Fusion, fit_fusion, save_fusion
from oml_vit_ext.reranking.siamese import STIRSiamese

THIRDS = 3
TOP_N = 5  # the paper's
ANCHORS = 32  # of a step; each with one positive and one negative
NEAREST = 5  # the positive and the negative are drawn among so many nearest of the same and of other labels
VIEWS = 2  # augmented views of each photo
HEAD_LR = 10  # times the learning rate of the transformer

Row = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        for third in args.thirds:
            for name in args.curves:
                key = {"third": third, "model": name}
                if study.missing(args.results / "study_reranking.json", key):
                    study.add(args.results / "study_reranking.json", {**key, **curve_of(name, third, args)})


# The pair models: how many blocks see one image alone, where the weights start, the learning rate, steps of a curve.
MODELS: dict[str, Row] = {
    "stir_10": {"join_layer": 10, "start": "first_stage", "lr": 1e-4},
    "stir_10_shelf": {"join_layer": 10, "start": "pretrained", "lr": 1e-4},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a file, or a timm tag: vit_small_patch14_dinov2.lvd142m")
    parser.add_argument("--data", type=Path, default=study.ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("--thirds", type=lambda t: [int(i) for i in t.split(",")], default=[0, 1, 2])
    parser.add_argument("--curves", type=lambda t: t.split(","), default=list(MODELS))
    parser.add_argument("--first-iterations", type=int, default=60, help="of a third's first stage")
    parser.add_argument("--steps", type=int, default=150, help="of a pair model")
    parser.add_argument("--every", type=int, default=30, help="steps between two points of a curve")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=study.ROOT / "docs/results", help="folder")
    parser.add_argument("--models", type=Path, default=study.ROOT / "outputs/study", help="folder")
    return parser.parse_args()


# --- held out ---------------------------------------------------------------------------------------------------------


def curve_of(name: str, third: int, args: argparse.Namespace) -> Row:
    """A pair model's CMC@1 on the queries of a third, alone and with the best fusion, against steps."""
    frame = args.models / f"third{third}.csv"
    if not frame.is_file():
        frame.parent.mkdir(parents=True, exist_ok=True)
        with replaced(frame) as unfinished:
            study.held_out(pd.read_csv(args.data / "df.csv"), third).to_csv(unfinished, index=False)
    checkpoint = args.models / f"third{third}_first_stage.ckpt"
    if not checkpoint.is_file():
        train_first_stage(frame, checkpoint, args)
    stage = FirstStage.load(checkpoint, frame, args)
    points = []
    for model, step, seconds in train_pairs(name, stage, args, total=args.steps, every=args.every, seed=1):
        scores = stage.scores(model)
        fitted = fit_fusion(stage.found.distances, scores, stage.right())
        points.append({"step": step, "seconds": seconds, **summary(fitted)})
        print(third, name, points[-1], flush=True)
    return {
        "settings": MODELS[name],
        "queries": len(scores),
        "cmc1_first_stage": round(fitted.cmc1_first_stage, 4),
        "points": points,
        "distances": [[round(float(x), 5) for x in d[:TOP_N]] for d in stage.found.distances],
        "scores": [[round(float(x), 6) for x in s] for s in scores],
        "right": [[int(x) for x in r] for r in stage.right()],
    }


def summary(fitted: FittedFusion) -> Row:
    fusion = fitted.fusion
    return {
        "cmc1_pair_model": round(fitted.curve[0.0], 4),
        "cmc1_fused": round(fitted.cmc1, 4),
        "first_stage_weight": fusion.first_stage_weight,
        "temperature": fusion.temperature,
    }


def train_first_stage(frame: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    method, settings = first_stage_of_choices(args)
    overrides = [f"study/method={method}", f"dataset_root={args.data.absolute()}", f"pretrained={args.weights}"]
    overrides += [*study.overrides(settings), f"dataframe_name={frame.absolute()}"]
    cfg = compose("study/train", overrides)
    n = args.first_iterations
    extractor, _, _ = study.last(study.train(cfg, study.number_of_classes(pd.read_csv(frame)), n, n))
    study.keep(extractor, checkpoint)


def first_stage_of_choices(args: argparse.Namespace) -> tuple[str, Row]:
    """The better of ``irt_l`` and ``irt_r`` by the study's tries, with its settings."""
    return "irt_r", {
        "optimizer.args.lr": 3e-5,
        "criterion.args.margin": 0.5,
        "criterion.args.entropy_weight": 4.0,
    }


# --- first stage ------------------------------------------------------------------------------------------------------


@dataclass
class FirstStage:
    """A trained first stage: what it finds for the queries, and how alike it finds the training photos."""

    checkpoint: Path
    weights: str  # that it was trained from
    cfg: DictConfig
    train_data: Any
    data: Any
    found: RetrievalResults
    similarity: Tensor  # (N, N), of the training photos
    labels: Tensor  # (N,)

    @classmethod
    def load(cls, checkpoint: Path, frame: Path, args: argparse.Namespace) -> FirstStage:
        overrides = [f"dataset_root={args.data.absolute()}", f"dataframe_name={frame.absolute()}"]
        cfg = compose("stir/validate_reranker_photos", [*overrides, f"first_stage_checkpoint='{checkpoint}'", "checkpoint=none"])
        cfg.num_workers = 0
        transform = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_val, resolve=True))
        train_data, data = study.get_retrieval_images_datasets(
            Path(cfg.dataset_root), transform, transform, dataframe_name=cfg.dataframe_name
        )
        extractor = get_extractor_by_cfg(OmegaConf.to_container(cfg.extractor, resolve=True)).eval()
        of_queries = inference(extractor, data, cfg.bs_val, num_workers=0)
        of_train = inference(extractor, train_data, cfg.bs_val, num_workers=0)
        found = RetrievalResults.from_embeddings(of_queries, data, n_items=10)
        labels = torch.as_tensor(train_data.get_labels())
        return cls(checkpoint, args.weights, cfg, train_data, data, found, of_train @ of_train.T, labels)

    def scores(self, model: nn.Module, *, half: bool = True) -> list[Tensor]:
        """The pair model's opinion of each query's first candidates."""
        content: Any = OmegaConf.to_container(self.cfg.postprocessor, resolve=True)
        args = {k: v for k, v in content["args"].items() if k in ("memory_mb", "batch_size")}
        from oml_vit_ext.reranking import STIRReranker

        reranker = STIRReranker(TOP_N, model, num_workers=0, use_fp16=half, **args)
        return reranker.candidate_scores(self.found.retrieved_ids, self.data)

    def right(self) -> list[Tensor]:
        """Per query whether each of its first candidates belongs to the ground truth."""
        pairs = zip(self.found.retrieved_ids, self.found.gt_ids, strict=True)
        return [torch.isin(ids[:TOP_N], gt) for ids, gt in pairs]


# --- pair models ------------------------------------------------------------------------------------------------------


def train_pairs(
    name: str, stage: FirstStage, args: argparse.Namespace, *, total: int, every: int, seed: int
) -> Iterator[tuple[nn.Module, int, float]]:
    """Yield the pair model, steps and processor seconds, at the start and every ``every`` steps."""
    settings = MODELS[name]
    set_global_seed(seed)
    started = time.process_time()
    model = pair_model(settings, stage)
    kept, learning = keep_what_does_not_learn(model, views_of(stage, args))
    k = settings["join_layer"]
    optimizer = torch.optim.AdamW(
        [
            {"params": learning, "lr": settings["lr"]},
            {"params": model.head.parameters(), "lr": HEAD_LR * settings["lr"]},
        ],
        weight_decay=5e-4,
    )
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    generator = torch.Generator().manual_seed(seed)
    different = torch.cat([torch.zeros(ANCHORS), torch.ones(ANCHORS)])
    yield model.eval(), 0, 0.0
    used = time.process_time() - started
    for first in range(0, total, every):
        started = time.process_time()
        model.train()
        for _ in tqdm(range(first, min(total, first + every)), desc=f"{name}, seed {seed}", mininterval=20):
            x1, x2 = draw_pairs(stage, generator)
            of_1, of_2 = (kept[torch.randint(len(kept), (len(x),), generator=generator), x] for x in (x1, x2))
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.score(of_1, of_2) if k else model(of_1, of_2)
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), different)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            warm.step()
        used += time.process_time() - started
        yield model.eval(), min(total, first + every), round(used / torch.get_num_threads(), 1)


def pair_model(settings: Row, stage: FirstStage) -> Any:
    content: Any = OmegaConf.to_container(stage.cfg.postprocessor, resolve=True)
    args = content["args"]["pairwise_model"]["args"]
    args["weights"] = None
    args["join_layer"] = settings["join_layer"]
    args["extractor"]["args"]["weights"] = (
        str(stage.checkpoint) if settings["start"] == "first_stage" else stage.weights
    )
    content["args"]["fusion"] = None
    return get_postprocessor_by_cfg(content).model


def views_of(stage: FirstStage, args: argparse.Namespace) -> Tensor:
    """Augmented views of the training photos, decoded once. -> ``(VIEWS, N, 3, H, W)``"""
    cfg = compose("stir/train_reranker_photos", ["first_stage_checkpoint=none"])
    transform = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_train, resolve=True))
    data, _ = study.get_retrieval_images_datasets(
        Path(stage.cfg.dataset_root), transform, transform, dataframe_name=stage.cfg.dataframe_name
    )
    return torch.stack([torch.stack([data[i][data.input_tensors_key] for i in range(len(data))]) for _ in range(VIEWS)])


def keep_what_does_not_learn(model: Any, views: Tensor) -> tuple[Tensor, list[nn.Parameter]]:
    """What training reads instead of photos, and the parameters of the transformer that it changes."""
    if not isinstance(model, STIRSiamese) or model.join_layer == 0:
        return views, list(model.extractor.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoded = [model.eval().encode(part) for view in views for part in view.split(64)]
    backbone = model.extractor.backbone
    learning = [*backbone.blocks[model.join_layer :].parameters(), *backbone.norm.parameters()]
    return torch.cat(encoded).float().unflatten(0, views.shape[:2]), learning


def draw_pairs(stage: FirstStage, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Anchors twice, with a positive and with a negative among the nearest photos of the first stage."""
    anchors = torch.randperm(len(stage.labels), generator=generator)[:ANCHORS]
    s = stage.similarity[anchors].clone()
    s.scatter_(1, anchors[:, None], -torch.inf)
    same = stage.labels[anchors][:, None] == stage.labels[None]
    partners = []
    for mask in (same, ~same):
        nearest = s.masked_fill(~mask, -torch.inf).topk(NEAREST, dim=1).indices
        partners.append(nearest.gather(1, torch.randint(NEAREST, (ANCHORS, 1), generator=generator))[:, 0])
    return anchors.repeat(2), torch.cat(partners)


if __name__ == "__main__":
    main()
