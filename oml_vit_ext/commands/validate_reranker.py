"""``oml-vit-ext validate-reranker``"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oml_vit_ext.commands.options import Config, Multirun, Overrides, RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def validate_reranker(
    config: Config, overrides: Overrides = None, to: RunFolder = None, multirun: Multirun = False
) -> None:
    """Validate a first stage with its re-ranker; metrics are printed before and after re-ranking.

    Example:

      oml-vit-ext validate-reranker stir/validate_reranker_photos dataset_root=photos \\
        first_stage_checkpoint=FIRST/checkpoints/best.ckpt checkpoint=PAIRS/checkpoints/best.ckpt
    """
    from oml_vit_ext.commands.launching import launch
    from oml_vit_ext.commands.screen import in_few_words

    launch(config, overrides, in_few_words(validate_pair_model), to=to, multirun=multirun)


def validate_pair_model(cfg: DictConfig) -> None:
    """OML's validation with a re-ranker, beside the first stage alone.

    Raises:
        ValueError: A checkpoint is not given, or not there.
    """
    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.commands.before_and_after import validate_and_compare
    from oml_vit_ext.commands.reranker_config import check_checkpoints
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    check_checkpoints(cfg)
    validate_and_compare(with_absolute_paths(cfg))
