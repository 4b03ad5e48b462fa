"""``oml-vit-ext validate``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oml_vit_ext.commands.options import Multirun, Overrides, RunFolder
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig


def validate(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG_OR_RUN", help="A config, or the folder of a training.", show_default=False),
    ],
    overrides: Overrides = None,
    to: RunFolder = None,
    multirun: Multirun = False,
) -> None:
    """Validate an extractor: a config with OML's pipeline, or the best model of a training.

    Examples:

      oml-vit-ext validate logs/irt/train_photos/RUN

      oml-vit-ext validate irt/validate_sop dataset_root=DIR checkpoint=FILE
    """
    from oml_vit_ext.runs.run_folder import is_run

    if is_run(config):
        _validate_run(config, overrides or [])
        return
    from oml_vit_ext.commands.launching import launch
    from oml_vit_ext.commands.screen import in_few_words

    launch(config, overrides, in_few_words(validate_extractor), to=to, multirun=multirun)


def validate_extractor(cfg: DictConfig) -> None:
    """OML's validation, with paths and photos as for ``train_extractor``."""
    from oml.lightning.pipelines.validate import extractor_validation_pipeline

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    extractor_validation_pipeline(with_absolute_paths(cfg))


def _validate_run(run: str, overrides: list[str]) -> None:
    from omegaconf import OmegaConf

    from oml_vit_ext.commands.figures import figures_of, table
    from oml_vit_ext.commands.frame_facts import FrameFacts, read_frame
    from oml_vit_ext.runs import model_config, read_run

    trained = read_run(run, overrides=overrides)
    cfg = OmegaConf.create(trained.config)
    facts = FrameFacts.of(read_frame(cfg.dataset_root, cfg.dataframe_name))
    extractor, _ = model_config(trained)
    print(table({counted(facts.validation_photos, "photo"): figures_of(cfg, extractor)}, facts.gallery_photos - 1))
