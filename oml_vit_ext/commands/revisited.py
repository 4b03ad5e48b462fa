"""``oml-vit-ext revisited``"""

from __future__ import annotations

from oml_vit_ext.commands.options import Config, Overrides, RunFolder


def revisited(config: Config, overrides: Overrides = None, to: RunFolder = None) -> None:
    """Evaluate a model on Revisited Oxford or Paris by the official protocol: mAP and mP@k, with a million distractors.

    Examples:

      oml-vit-ext revisited revisited/evaluate_irt dataset_root=data/roxford5k checkpoint=FILE

      oml-vit-ext revisited revisited/evaluate_dtop dataset_root=data/rparis6k checkpoint=FILE benchmark=rparis6k
    """
    from oml_vit_ext.commands.launching import launch
    from oml_vit_ext.commands.revisited_evaluation import evaluate

    launch(config, overrides, evaluate, to=to, check=False)
