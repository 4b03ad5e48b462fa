"""``oml-vit-ext train`` with Hydra's own command line: ``--help`` lists what can be set."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.train import train_extractor


@hydra.main(config_path="../configs", config_name="irt/train_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    train_extractor(cfg)


if __name__ == "__main__":
    main()
