"""Draws the README's picture: what a transformer finds off the shelf, and after the study's training.

  python docs/draw_photos.py     # after benchmarks/study.py, whose first IRT_L it takes

The queries are those of the demo's page, products taken evenly from their list: no good ones are picked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from oml.registry.models import get_extractor_by_cfg

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from tools.demo_pictures import draw_before_and_after, evenly, first_is_right  # noqa: E402
from tools.folders import in_folder  # noqa: E402
from tools.retrieved_images import RetrievedImages  # noqa: E402

N_QUERIES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "outputs/study/irt_l_seed1.ckpt")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images/photos.jpg")
    args = parser.parse_args()
    checkpoint = f"checkpoint='{args.checkpoint.absolute()}'"
    runs = {"off the shelf": ["irt/variant=irt_o"], "trained": ["irt/variant=irt_l", checkpoint]}
    found = {}
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        for name, overrides in runs.items():
            cfg = compose("irt/validate_photos", [*overrides, "num_workers=0"])
            images = RetrievedImages(cfg)
            results = images.retrieve(get_extractor_by_cfg(cfg.extractor).eval(), n_items=10)
            right, n = sum(first_is_right(results)), len(results.retrieved_ids)
            found[f"{name}\n{right} of {n} right"] = results  # the first hits
        draw_before_and_after(images, found, evenly(images, N_QUERIES), args.output.absolute())
    print(args.output)


if __name__ == "__main__":
    main()
