"""Lets YAML configs of open-metric-learning use oml-vit-ext without an import line.

Hydra loads this module in every Hydra application on the machine, so it imports nothing but Hydra itself. Only in a
process that has imported ``oml`` before does it register the names and add the configs.
"""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OMLViTExtSearchPath(SearchPathPlugin):
    """Registers the names and adds ``pkg://oml_vit_ext.configs``, where ``oml`` is in use."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if "oml" not in sys.modules:
            return
        import oml_vit_ext  # noqa: F401  (importing it registers)

        search_path.append(provider="oml-vit-ext", path="pkg://oml_vit_ext.configs")
