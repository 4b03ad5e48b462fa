"""``oml-vit-ext fit-fusion`` with Hydra's own command line; ``oml-vit-ext fit-fusion --help`` says when and how."""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.errors import leaving_in_one_sentence
from oml_vit_ext.commands.fit_fusion import fit_fusion_of


@hydra.main(config_path="../configs", config_name="stir/validate_reranker_photos", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    with leaving_in_one_sentence():
        fit_fusion_of(cfg)


if __name__ == "__main__":
    main()
