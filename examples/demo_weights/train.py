"""Trains the demo's starting weights from scratch on the training emoji, with OML's pipeline: ``make weights``.

Supervised contrastive learning within the batch (SupCon), because from scratch a cross-batch memory holds embeddings
that are soon out of date, and the model collapses. The learning rate stays high to the end: it is the demo's own
training that brings it down. The last weights are kept, not the best on the validation emoji.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from oml.lightning.pipelines.train import extractor_training_pipeline
from safetensors.torch import save_file

from oml_vit_ext.extractors import IRTExtractor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the examples beside this folder
from tools.folders import in_folder  # noqa: E402

TARGET = HERE / "vit_tiny_emoji.safetensors"
LR = 7e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=900, help="of 128 drawings: 64 emoji, two drawings of each")
    parser.add_argument("--runs", type=Path, default=Path("outputs/weights"), help="folder for logs and checkpoint")
    parser.add_argument("--target", type=Path, default=TARGET, help="where the weights go, in half precision")
    args = parser.parse_args()
    target, runs = args.target.absolute(), args.runs.absolute()
    cfg = config(args.iterations)
    with in_folder(runs):
        Path("checkpoints/best.ckpt").unlink(missing_ok=True)
        extractor_training_pipeline(cfg)
    export(runs / "checkpoints" / "best.ckpt", cfg, target)
    print(f"Weights in {target} ({target.stat().st_size / 1e6:.1f} MB)")


def config(iterations: int) -> DictConfig:
    """The demo's training, but for the criterion, the augmentation, the sampler and the optimiser."""
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose("irt/train_demo", [f"dataset_root={HERE.parent / 'demo_data'}", f"iterations={iterations}"])
    changes = {
        "variant": "pretrain",
        "pretrained": None,
        "valid_iterations": min(300, iterations),
        "criterion": {"name": "pml", "args": {"loss": {"name": "SupConLoss", "args": {"temperature": 0.1}}}},
        "sampler": {"name": "balance", "args": {"n_labels": 64, "n_instances": 2}},
        "optimizer": {"name": "adamw", "args": {"lr": LR, "weight_decay": 0.05}},
        "transforms_train": {"name": "augs_hypvit_torch", "args": {"im_size": 48, "min_scale": 0.35}},
        # A warm-up of 100 iterations, then as good as constant.
        "scheduling": {
            "scheduler": {
                "name": "cyclic",
                "args": {"base_lr": LR / 20, "max_lr": LR, "step_size_up": 100, "step_size_down": 10**7}
                | {"cycle_momentum": False},
            },
            "scheduler_interval": "step",
            "scheduler_frequency": 1,
        },
        "metric_for_checkpointing": "step",  # the last one
    }
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return OmegaConf.create({**plain, **changes})


def export(checkpoint: Path, cfg: DictConfig, target: Path) -> None:
    """Write the backbone alone, in half precision, under a temporary name first."""
    args = OmegaConf.to_container(cfg.extractor.args, resolve=True)
    assert isinstance(args, dict)
    backbone = IRTExtractor(**{**args, "weights": checkpoint}).backbone
    unfinished = target.with_suffix(".part")
    save_file({k: v.to(torch.float16).contiguous() for k, v in backbone.state_dict().items()}, unfinished)
    os.replace(unfinished, target)


if __name__ == "__main__":
    main()
