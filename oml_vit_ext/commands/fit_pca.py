"""``oml-vit-ext fit-pca``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oml_vit_ext.commands.options import Config, Overrides, RunFolder
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from oml.datasets.images import ImageLabeledDataset

    from oml_vit_ext.extractors.pca import PCAWeights


def fit_pca(config: Config, overrides: Overrides = None, to: RunFolder = None) -> None:
    """Fit the PCA of extractor_with_pca on the training images of a data set.

    It is written where the config says (pca=NEW); validating and predicting with the same arguments then use it.

    Examples:

      oml-vit-ext fit-pca irt/validate_sop irt/variant=irt_r_pca128 checkpoint=FILE pca=NEW

      oml-vit-ext validate irt/validate_sop irt/variant=irt_r_pca128 checkpoint=FILE pca=NEW
    """
    from oml_vit_ext.commands.launching import launch

    launch(config, overrides, fit_pca_of, to=to, check=False)


def fit_pca_of(cfg: DictConfig) -> None:
    """Fit the PCA of the extractor of ``cfg``, and write it to ``extractor.args.weights``.

    Raises:
        ValueError: The extractor has no PCA, or there are no training rows.
    """
    from pathlib import Path

    from oml.inference.abstract import inference
    from oml.registry.models import get_extractor_by_cfg

    from oml_vit_ext.commands.absolute_paths import with_absolute_paths
    from oml_vit_ext.commands.retrieved_images import device_of
    from oml_vit_ext.extractors.pca import fit_pca, save_pca
    from oml_vit_ext.oml_patches import read_all_upright

    read_all_upright()
    cfg = with_absolute_paths(cfg)
    if cfg.extractor.name != "extractor_with_pca":
        raise ValueError(
            f"The extractor of this config is {cfg.extractor.name!r}, expected 'extractor_with_pca': choose a variant "
            f"with it, e.g. irt/variant=irt_r_pca128."
        )
    args = cfg.extractor.args
    extractor = get_extractor_by_cfg(args.extractor).to(device_of(cfg))
    dataset = training_images(cfg)
    print(f"Embeddings of {counted(len(dataset), 'training image')}")
    embeddings = inference(extractor, dataset, batch_size=cfg.bs_val, num_workers=cfg.num_workers, verbose=True)
    pca = fit_pca(embeddings, args.n_components)
    target = Path(args.weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_pca(pca, target)
    print(f"{described(pca)}\nPCA in {target}")


def training_images(cfg: DictConfig) -> ImageLabeledDataset:
    """The training rows of the dataframe, or ``pca_images`` of them at random, with the transform of validation."""
    from pathlib import Path

    from omegaconf import OmegaConf
    from oml.datasets.images import ImageLabeledDataset
    from oml.registry.transforms import get_transforms_by_cfg

    from oml_vit_ext.datasets.frame import read_frame

    df = read_frame(Path(cfg.dataset_root) / cfg.dataframe_name)
    rows = df[df.split == "train"]
    if rows.empty:
        raise ValueError(f"{cfg.dataframe_name} in {cfg.dataset_root} has no training rows, on which PCA is fitted.")
    wanted = OmegaConf.select(cfg, "pca_images")
    if wanted is not None and wanted < len(rows):
        rows = rows.sample(wanted, random_state=0)
    transform: Any = get_transforms_by_cfg(cfg.transforms_val)
    return ImageLabeledDataset(
        rows.reset_index(drop=True),
        dataset_root=cfg.dataset_root,
        transform=transform,
    )


def described(pca: PCAWeights) -> str:
    """How much of the variance the components carry, in one line."""
    energy = pca.variance_ratio.cumsum(0)
    kept, width = pca.components.shape
    parts = [
        f"{kept} of {counted(width, 'dimension')} {'carries' if kept == 1 else 'carry'} {energy[-1]:.1%} of the "
        f"variance"
    ]
    parts += [f"{int((energy < share).sum()) + 1} carry {share:.0%}" for share in (0.5, 0.9) if energy[-1] >= share]
    return ", ".join(parts)
