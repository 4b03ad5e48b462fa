"""``oml-vit-ext predict`` with Hydra's own command line: ``--help`` lists what can be set."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.predict import predict_extractor


@hydra.main(config_path="../configs", config_name="irt/predict_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    predict_extractor(cfg)


if __name__ == "__main__":
    main()
