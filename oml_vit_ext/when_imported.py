"""Runs a function on a module when that module is imported, without importing it."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

Action = Callable[[ModuleType], None]


def when_imported(name: str, action: Action) -> None:
    """Call ``action(module)``: now, if the module ``name`` is loaded, else right after its first import.

    The host's pipelines need Lightning, which takes seconds to import and may not be installed: what is to be changed
    in them is changed when somebody uses them.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    _finder().actions.setdefault(name, []).append(action)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a module as Python does, and hangs the actions on its loading."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_act(module: ModuleType) -> None:
            load(module)
            for action in self.actions.pop(fullname, []):
                action(module)

        spec.loader.exec_module = load_and_act  # type: ignore[method-assign]
        return spec


def _finder() -> _Finder:
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    sys.meta_path.insert(0, _Finder())
    return sys.meta_path[0]  # type: ignore[return-value]
