"""The scripts that make the documentation, which are no package."""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType

from helpers import ROOT


@functools.cache
def script(name: str) -> ModuleType:
    """``docs/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module
