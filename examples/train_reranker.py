"""Trains a pairwise re-ranker with OML's pipeline. ``--help`` lists what can be set.

At the end, the best checkpoint is validated, and the metrics are printed before and after re-ranking. Without
arguments: the demo data.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR
from oml.lightning.pipelines.train_postprocessor import postprocessor_training_pipeline

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.before_and_after import validate_and_compare
from oml_vit_ext.commands.reranker_config import check_checkpoints, validation_of
from oml_vit_ext.oml_patches import read_all_upright


@hydra.main(config_path="../configs", config_name="stir/train_reranker_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    read_all_upright()
    check_checkpoints(cfg)
    cfg = with_absolute_paths(cfg)
    postprocessor_training_pipeline(cfg)
    best = max(Path("checkpoints").glob("best*.ckpt"), key=lambda path: path.stat().st_mtime)
    validate_and_compare(validation_of(cfg, best.absolute()))


if __name__ == "__main__":
    main()
