"""``oml-vit-ext fit-fusion``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from oml_vit_ext.commands.options import Config, Overrides, RunFolder
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from oml_vit_ext.reranking import FittedFusion


def fit_fusion(config: Config, overrides: Overrides = None, to: RunFolder = None) -> None:
    """Fit the two numbers of a re-ranker's fusion: how much the first stage's distance counts, and a temperature.

    Both models must be trained without the queries' labels, and these must not be the labels that you report figures
    of: hold out a part of the training labels first. It writes fusion.json into the folder of the run: give it to a
    re-ranker as fusion=FILE.

    Example:

      python -m oml_vit_ext.datasets hold-out photos/df.csv --output photos/held_out.csv

      oml-vit-ext train irt/train_photos dataset_root=photos dataframe_name=held_out.csv --to runs/first

      oml-vit-ext train-reranker stir/train_reranker_photos dataset_root=photos dataframe_name=held_out.csv \\
        first_stage_checkpoint=runs/first/checkpoints/best.ckpt --to runs/pairs

      oml-vit-ext fit-fusion stir/validate_reranker_photos dataset_root=photos dataframe_name=held_out.csv \\
        first_stage_checkpoint=runs/first/checkpoints/best.ckpt checkpoint=runs/pairs/checkpoints/best.ckpt
    """
    from oml_vit_ext.commands.launching import launch

    launch(config, overrides, fit_fusion_of, to=to)


def fit_fusion_of(cfg: DictConfig) -> None:
    """Write ``fusion.json`` into the current folder, and print what each weight gives.

    Raises:
        ValueError: A checkpoint is not given, or not there.
    """
    from pathlib import Path

    from oml_vit_ext.reranking import fit_fusion, save_fusion

    candidates = candidates_of(cfg)
    fitted = fit_fusion(*candidates)
    print(described(fitted, len(candidates.scores)))
    fitted_on = {
        "data": f"{Path(cfg.dataset_root).name}/{cfg.dataframe_name}",
        "top_n": int(cfg.postprocessor.args.top_n),
        "join_layer": int(cfg.postprocessor.args.pairwise_model.args.get("join_layer", 0)),
        **figures(fitted, len(candidates.scores)),
    }
    save_fusion(fitted.fusion, "fusion.json", fitted_on)
    print(f"{Path.cwd() / 'fusion.json'}: give it to a re-ranker as fusion=FILE")


class Candidates(NamedTuple):
    """What is re-ranked of each query, as ``fit_fusion`` takes it: each a list of ``(n,)``, nearest first."""

    distances: list[Tensor]
    scores: list[Tensor]
    right: list[Tensor]


def candidates_of(cfg: DictConfig) -> Candidates:
    """The first candidates of every query of a config of validation, with the scores of the pair model alone.

    Raises:
        ValueError: A checkpoint is not given, or not there.
    """
    from omegaconf import open_dict
    from oml.registry.models import get_extractor_by_cfg
    from oml.registry.postprocessors import get_postprocessor_by_cfg

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.commands.launching import plain
    from oml_vit_ext.commands.reranker_config import check_checkpoints
    from oml_vit_ext.commands.retrieved_images import RetrievedImages, device_of, right_ones

    check_checkpoints(cfg)
    cfg = with_absolute_paths(cfg)
    args = cfg.postprocessor.args
    with open_dict(args):
        args.budget = args.fusion = None  # all queries, each with the pair model's own scores
    images, device = RetrievedImages(cfg), device_of(cfg)
    extractor = get_extractor_by_cfg(cfg.extractor).to(device).eval()
    reranker: Any = get_postprocessor_by_cfg(plain(cfg.postprocessor))
    reranker.model.to(device).eval()
    found = images.retrieve(extractor, reranker.top_n)
    scores = reranker.candidate_scores(found.retrieved_ids, images.dataset)
    return Candidates(list(found.distances), scores, [right_ones(found, q) for q in range(len(scores))])


def figures(fitted: FittedFusion, n_queries: int) -> dict[str, float]:
    """What a reader of the file wants to know of the fit."""
    return {
        "queries": n_queries,
        "cmc1_first_stage": round(fitted.cmc1_first_stage, 4),
        "cmc1_pair_model": round(fitted.curve[0.0], 4),
        "cmc1_fused": round(fitted.cmc1, 4),
    }


def described(fitted: FittedFusion, n_queries: int) -> str:
    """The curve over the weight as a table, and the choice."""
    lines = [f"{counted(n_queries, 'query', 'queries')}; weight of the first stage, CMC@1 with the best temperature:"]
    names = {0.0: "  the pair model alone", 1.0: "  the first stage alone"}
    lines += [f"  {weight:4.2f}   {cmc1:.4f}{names.get(weight, '')}" for weight, cmc1 in fitted.curve.items()]
    fusion = fitted.fusion
    lines.append(f"Fitted: first_stage_weight {fusion.first_stage_weight:g}, temperature {fusion.temperature:g}")
    if fusion.first_stage_weight == 1:
        lines.append("The pair model knows nothing that the first stage does not: re-ranking with it changes nothing.")
    return "\n".join(lines)
