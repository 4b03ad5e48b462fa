"""One list of Hydra overrides for the training and the validation of a run."""

from __future__ import annotations

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf


def known_to(name: str, overrides: list[str]) -> list[str]:
    """The overrides whose key the config ``name`` has: one of validation has no optimizer, for instance."""
    known = OmegaConf.to_container(compose(name))  # a DictConfig would hide keys that are still ???
    keys = [parsed.key_or_group.split(".")[0] for parsed in OverridesParser.create().parse_overrides(overrides)]
    return [override for override, key in zip(overrides, keys, strict=True) if key in known]
