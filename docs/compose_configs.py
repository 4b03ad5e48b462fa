"""Writes the main runs' configs, fully composed, into ``docs/configs/``: each run in one place, to read and to compare.

Edit ``configs/``, then call ``make configs``; a test fails while the files are stale.
"""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "configs"
# As one would call them: a command, its config, what a user has to say.
RUNS = """
train             irt/train_sop                irt/variant=irt_r
train             irt/train_cub                irt/variant=irt_r
train             irt/train_inshop             irt/variant=irt_r
train             irt/small_data               dataset_root=photos memory_size=2000
validate          irt/validate_sop             irt/variant=irt_r checkpoint=best.ckpt
predict           irt/predict_sop              irt/variant=irt_r checkpoint=best.ckpt
train             dtop/train_gldv2_clean       dtop/variant=full
train             dtop/train_sfm120k           dtop/variant=full
validate          dtop/validate_gldv2_clean    dtop/variant=full checkpoint=best.ckpt
train             stir/train_first_stage_sop
train-reranker    stir/train_reranker_sop      first_stage_checkpoint=first.ckpt
validate-reranker stir/validate_reranker_sop   first_stage_checkpoint=first.ckpt checkpoint=best.ckpt
train             revisited/train_sfm120k      revisited/variant=irt_r
revisited         revisited/evaluate_irt       irt/variant=irt_r checkpoint=best.ckpt
revisited         revisited/evaluate_dtop      dtop/variant=full checkpoint=best.ckpt
"""


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    files = composed_runs()
    for stale in {path.name for path in TARGET.glob("*.yaml")} - set(files):
        (TARGET / stale).unlink()
    for name, text in files.items():
        (TARGET / name).write_text(text)
    print(f"{len(files)} configs in {TARGET}")


def composed_runs() -> dict[str, str]:
    """File name -> its text, for each of the runs."""
    files = {}
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        for name, config, *overrides in map(str.split, RUNS.strip().splitlines()):
            command = " ".join(["oml-vit-ext", name, config, *overrides])
            values = OmegaConf.to_yaml(compose(config, overrides), resolve=True)
            files[file_name(config, overrides)] = f"# {command}\n# Written by docs/compose_configs.py.\n{values}"
    return files


def file_name(config: str, overrides: list[str]) -> str:
    """``irt/train_sop irt/variant=irt_r`` -> ``irt_train_sop_irt_r.yaml``"""
    variants = [value for key, value in (o.split("=") for o in overrides) if key.endswith("/variant")]
    return "_".join([config.replace("/", "_"), *variants]) + ".yaml"


if __name__ == "__main__":
    main()
