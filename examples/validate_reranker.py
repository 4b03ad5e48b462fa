"""Validates a first stage with its re-ranker in OML's pipeline. ``--help`` lists what can be set.

The metrics are printed before and after re-ranking.
"""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.before_and_after import validate_and_compare
from oml_vit_ext.commands.reranker_config import check_checkpoints
from oml_vit_ext.oml_patches import read_all_upright


@hydra.main(config_path="../configs", config_name="stir/validate_reranker_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    read_all_upright()
    check_checkpoints(cfg)
    validate_and_compare(with_absolute_paths(cfg))


if __name__ == "__main__":
    main()
