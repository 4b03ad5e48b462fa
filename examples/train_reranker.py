"""``oml-vit-ext train-reranker`` with Hydra's own command line: ``--help`` lists what can be set."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.errors import leaving_in_one_sentence
from oml_vit_ext.commands.train_reranker import train_pair_model


@hydra.main(config_path="../configs", config_name="stir/train_reranker_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    with leaving_in_one_sentence():
        train_pair_model(cfg)


if __name__ == "__main__":
    main()
