"""``oml-vit-ext predict``"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oml_vit_ext.commands.options import Config, Multirun, Overrides, RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def predict(config: Config, overrides: Overrides = None, to: RunFolder = None, multirun: Multirun = False) -> None:
    """Write the embeddings of a folder of images with OML's pipeline.

    The file predictions.json in the folder of the run maps each image to its embedding.

    Example:

      oml-vit-ext predict irt/predict_sop data_dir=photos checkpoint=RUN/checkpoints/best.ckpt
    """
    from oml_vit_ext.commands.launching import launch
    from oml_vit_ext.commands.screen import in_few_words

    launch(config, overrides, in_few_words(predict_extractor), to=to, multirun=multirun)


def predict_extractor(cfg: DictConfig) -> None:
    """OML's prediction, with paths and photos as for ``train_extractor``."""
    from oml.lightning.pipelines.predict import extractor_prediction_pipeline

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    extractor_prediction_pipeline(with_absolute_paths(cfg))
