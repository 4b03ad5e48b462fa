"""Draws where an extractor looks, in queries and in what it retrieves for them.

Any config that validates an extractor:

  python examples/show_attention.py --config-name dtop/validate_demo checkpoint=FILE
  python examples/show_attention.py --config-name irt/validate_sop dataset_root=DIR checkpoint=FILE +n_queries=8 +top=3

The kinds of maps are those of ``oml_vit_ext.pictures.attention_maps``, e.g. ``+kinds=[rollout]``.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig
from oml.const import HYDRA_BEHAVIOUR
from oml.interfaces.models import IExtractor
from oml.registry.models import get_extractor_by_cfg
from torch import Tensor

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.retrieved_images import RetrievedImages, device_of, spread
from oml_vit_ext.oml_patches import read_all_upright
from oml_vit_ext.pictures import attention_maps, draw_attention, enlarge_maps, map_stride


@hydra.main(config_path="../configs", config_name="irt/validate_demo", version_base=HYDRA_BEHAVIOUR)
def main(cfg: DictConfig) -> None:
    read_all_upright()
    show(with_absolute_paths(cfg))


def show(cfg: DictConfig) -> None:
    """Write ``attention.png`` into the current folder: queries evenly spread over the data."""
    extractor = get_extractor_by_cfg(cfg.extractor).to(device_of(cfg)).eval()
    kinds = cfg.get("kinds") or default_kinds(extractor)
    top = cfg.get("top", 4)
    images = RetrievedImages(cfg)
    results = images.retrieve(extractor, top)
    queries = spread(range(len(results.retrieved_ids)), cfg.get("n_queries", 4))
    maps = {
        kind: [[pixel_map(extractor, images.tensor(i), kind) for i in images.ids(results, q, top)] for q in queries]
        for kind in kinds
    }
    draw_attention([images.strip(results, q, top) for q in queries], maps, Path("attention.png"))
    print(f"attention.png in {Path.cwd()}")


def default_kinds(extractor: IExtractor) -> list[str]:
    """Attention of the last block, and the local branch's part where there is one."""
    has_local_branch = any(name.endswith("local_branch") for name, _ in extractor.named_modules())
    return ["last_block", "local_branch"] if has_local_branch else ["last_block", "rollout"]


def pixel_map(extractor: IExtractor, image: Tensor, kind: str) -> Tensor:
    """``(3, H, W)`` -> ``(H, W)``."""
    maps = attention_maps(extractor, image[None].to(next(extractor.parameters()).device), kind)
    size = (image.shape[1], image.shape[2])
    return enlarge_maps(maps, size, map_stride(extractor))[0].cpu()


if __name__ == "__main__":
    main()
