"""``oml-vit-ext fit-pca`` with Hydra's own command line: fits the PCA of ``extractor_with_pca``.

python examples/fit_pca.py --config-name irt/validate_sop irt/variant=irt_r_pca128 checkpoint=FILE pca=NEW
"""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.fit_pca import fit_pca_of


@hydra.main(config_path="../configs", config_name="irt/validate_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    fit_pca_of(cfg)


if __name__ == "__main__":
    main()
