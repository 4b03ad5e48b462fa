"""``oml-vit-ext train-reranker``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oml_vit_ext.commands.options import Config, Multirun, Overrides, RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def train_reranker(
    config: Config,
    overrides: Overrides = None,
    to: RunFolder = None,
    multirun: Multirun = False,
    check: Annotated[bool, typer.Option(help="Look for mistakes before anything starts.")] = True,
) -> None:
    """Train a pairwise re-ranker with OML's pipeline.

    At the end, the best checkpoint is validated, and the metrics are printed before and after re-ranking.

    Example:

      oml-vit-ext train-reranker stir/train_reranker_photos dataset_root=photos \\
        first_stage_checkpoint=RUN/checkpoints/best.ckpt
    """
    from oml_vit_ext.commands.launching import launch

    launch(config, overrides, _train, to=to, multirun=multirun, check=check)


def _train(cfg: DictConfig) -> None:
    import shlex

    from oml_vit_ext.commands.hydra_runs import is_first_process
    from oml_vit_ext.commands.launching import as_typed
    from oml_vit_ext.commands.screen import quieten, without_config_dump
    from oml_vit_ext.runs import best_checkpoint

    quieten()
    with without_config_dump():
        train_pair_model(cfg)
    best = best_checkpoint(Path.cwd())
    if best is not None and is_first_process():
        run = shlex.quote(as_typed(Path.cwd()))
        print(f"\nWritten: {as_typed(best)}")
        print(f"Look:    oml-vit-ext report {run}")
        top_n = cfg.postprocessor.args.top_n
        print(f"Next:    oml-vit-ext query IMAGE --index INDEX --rerank {top_n} --reranker {run}")


def train_pair_model(cfg: DictConfig) -> None:
    """OML's training of a re-ranker, then its validation beside the first stage alone.

    Raises:
        ValueError: A checkpoint is not given, or not there.
    """
    from oml.lightning.pipelines.train_postprocessor import postprocessor_training_pipeline

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.commands.before_and_after import validate_and_compare
    from oml_vit_ext.commands.reranker_config import best_of, check_checkpoints, validation_of
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    check_checkpoints(cfg)
    cfg = with_absolute_paths(cfg)
    postprocessor_training_pipeline(cfg)
    validate_and_compare(validation_of(cfg, best_of(Path.cwd(), cfg.get("resume"))))
