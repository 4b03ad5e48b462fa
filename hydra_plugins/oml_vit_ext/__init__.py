"""Lets YAML configs of open-metric-learning (OML) use oml-vit-ext without an import line.

Hydra loads this module in every Hydra application on the machine, so it imports nothing but Hydra itself, and what it
adds to the search path shows nothing and imports nothing until OML is in use.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from hydra._internal.core_plugins import file_config_source
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hydra_plugins._oml_vit_ext_names import register_with_oml

_CONFIGS = "oml_vit_ext.configs"

register_with_oml()


class OMLViTExtSearchPath(SearchPathPlugin):
    """Adds our configs: by their package where OML is in use, else by their folder, as OML may be imported later."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if "oml" in sys.modules:
            search_path.append(provider="oml-vit-ext", path=f"pkg://{_CONFIGS}")
        elif folder := _configs():
            search_path.append(provider="oml-vit-ext", path=f"{OMLViTExtConfigs.scheme()}://{folder}")


class OMLViTExtConfigs(file_config_source.FileConfigSource):
    """A folder of configs that are found by their names, and not listed in the help of applications without OML."""

    @staticmethod
    def scheme() -> str:
        return "oml-vit-ext"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return super().list(config_path, results_filter) if "oml" in sys.modules else []


def _configs() -> Path | None:
    """Where our configs are, found as an import would find them, but without importing our package and torch."""
    package = find_spec("oml_vit_ext")
    for finder in sys.meta_path:
        spec = finder.find_spec(_CONFIGS, package.submodule_search_locations) if package else None
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None
