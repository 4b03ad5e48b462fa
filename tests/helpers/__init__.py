"""What several tests share: where things are, and random models that are small enough for one core."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO_DATA = ROOT / "examples" / "demo_data"

# A hybrid with a convolutional stem and a plain transformer.
TINY_PLAIN = {"arch": "vit_tiny_patch16_224", "timm_args": {"img_size": 32, "patch_size": 8, "depth": 2}}
TINY_HYBRID = {"arch": "vit_tiny_r_s16_p8_224", "timm_args": {"img_size": 48, "patch_size": 2, "depth": 2}}
