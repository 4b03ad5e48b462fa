"""Evaluates a model on Revisited Oxford or Paris from the official folders. ``--help`` lists what can be set.

  python examples/evaluate_revisited.py --config-name revisited/evaluate_irt  checkpoint=FILE dataset_root=DIR
  python examples/evaluate_revisited.py --config-name revisited/evaluate_dtop checkpoint=FILE dataset_root=DIR \\
      revisited/dataset=rparis6k distractors=DIR/revisitop1m distractor_descriptors=NEW_FOLDER
"""

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR

from oml_vit_ext.commands.revisited_evaluation import evaluate


@hydra.main(config_path="../configs", config_name="revisited/evaluate_irt", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    main()
