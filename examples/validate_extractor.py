"""``oml-vit-ext validate`` with Hydra's own command line: ``--help`` lists what can be set."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.validate import validate_extractor


@hydra.main(config_path="../configs", config_name="irt/validate_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    validate_extractor(cfg)


if __name__ == "__main__":
    main()
