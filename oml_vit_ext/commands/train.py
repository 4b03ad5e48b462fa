"""``oml-vit-ext train``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oml_vit_ext.commands.options import Config, Multirun, Overrides, RunFolder
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig

_MOST_VALIDATED_TWICE = 20_000  # images: beyond, the two extra passes of the table take long


def train(
    config: Config,
    overrides: Overrides = None,
    to: RunFolder = None,
    multirun: Multirun = False,
    check: Annotated[bool, typer.Option(help="Look for mistakes before anything starts.")] = True,
    compare: Annotated[
        bool | None,
        typer.Option(
            help="Validate the start and the result, and print both in a table. Default: with up to "
            f"{_MOST_VALIDATED_TWICE:,} validation photos.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train an extractor with OML's pipeline.

    CONFIG is one of this package's configs or a YAML file of your own; then come values for any of its keys. A config
    *_photos goes with any dataframe: batch, iterations, memory and sizes are chosen from it and from this machine, are
    printed with what they were chosen from, and can be set.

    Examples:

      oml-vit-ext train irt/train_photos dataset_root=photos

      oml-vit-ext train irt/train_sop dataset_root=DIR iterations=1000 --to sop_run

      oml-vit-ext train irt/train_photos dataset_root=photos resume=last --to RUN   # goes on where it stopped

      oml-vit-ext train my.yaml
    """
    from oml_vit_ext.commands.launching import launch

    launch(config, overrides, lambda cfg: _train(cfg, compare), to=to, multirun=multirun, check=check)


def train_extractor(cfg: DictConfig) -> None:
    """OML's training with the paths of ``cfg`` as seen from where the script was started, and upright photos."""
    from oml.lightning.pipelines.train import extractor_training_pipeline

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    extractor_training_pipeline(with_absolute_paths(cfg))


def _train(cfg: DictConfig, compare: bool | None) -> None:
    import shlex

    from omegaconf import OmegaConf

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.commands.figures import figures_of, table, verdict
    from oml_vit_ext.commands.frame_facts import FrameFacts, read_frame
    from oml_vit_ext.commands.hydra_runs import is_first_process
    from oml_vit_ext.commands.launching import as_typed
    from oml_vit_ext.commands.screen import quieten, say, without_config_dump
    from oml_vit_ext.runs import best_checkpoint, with_weights

    quieten()
    cfg = _with_quiet_metrics(cfg)
    paths = with_absolute_paths(cfg)
    facts = FrameFacts.of(read_frame(paths.dataset_root, paths.dataframe_name))
    if compare is None:
        compare = 1 < facts.validation_photos <= _MOST_VALIDATED_TWICE
    if not is_first_process():
        train_extractor(cfg)
        return
    start = None
    extractor: Any = OmegaConf.to_container(paths.extractor, resolve=True)
    if compare and not cfg.get("resume"):
        say("Before training")
        start = figures_of(paths, extractor)
    say("Training")
    with without_config_dump():
        train_extractor(cfg)
    best = best_checkpoint(Path.cwd())
    if best is None:
        raise FileNotFoundError("The training has left no best.ckpt, expected it to validate at least once.")
    rows = {}
    if compare:
        say("After training")
        result = figures_of(paths, with_weights(extractor, best))
        rows = {"before training": start, "after": result} if start else {"after training": result}
        print(f"\n{counted(facts.validation_photos, 'validation photo')}")
        print(table(rows, n_to_find=facts.gallery_photos - 1))
        if start:
            print(verdict(start, result))
    run = shlex.quote(as_typed(Path.cwd()))
    print(f"\nWritten: {as_typed(best)}")
    print(f"Look:    oml-vit-ext report {run}")
    print(f"Next:    oml-vit-ext index {shlex.quote(as_typed(paths.dataset_root))} --model {run} --to photo_index")


def _with_quiet_metrics(cfg: DictConfig) -> DictConfig:
    """OML prints raw figures after each validation unless it is told not to: the table at the end is what counts."""
    from omegaconf import open_dict

    cfg = cfg.copy()
    with open_dict(cfg):
        if cfg.get("metric_args") is not None and "verbose" not in cfg.metric_args:
            cfg.metric_args.verbose = False
    return cfg
