"""Writes the descriptors of a folder of images with OML's pipeline. ``--help`` lists what can be set."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR
from oml.lightning.pipelines.predict import extractor_prediction_pipeline

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.oml_patches import read_all_upright


@hydra.main(config_path="../configs", config_name="irt/predict_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    read_all_upright()
    extractor_prediction_pipeline(with_absolute_paths(cfg))


if __name__ == "__main__":
    main()
