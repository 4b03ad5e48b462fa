"""Registers the names of oml-vit-ext as soon as a process has imported OML's registries: this one, or one it starts.

Hydra does not look for plugins here (the name begins with ``_``), and nothing but the standard library is imported, so
that it can wait in processes that never use OML.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTRIES = "oml.registry"
_FOLLOWED = ("oml", "oml_vit_ext")


def register_with_oml() -> None:
    """Register now if OML's registries are there, else when they come; the same in all processes started from here."""
    # What stands in _config is inherited by all descendants; a process that is spawned unpickles it.
    multiprocessing.current_process()._config.setdefault("oml_vit_ext", _Inherited())  # type: ignore[attr-defined]
    register_when_oml_comes()


def register_when_oml_comes() -> None:
    """Register now if OML's registries are there, else the moment that they are."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if _REGISTRIES in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    from oml_vit_ext.registration import register

    register()


class _Inherited:
    def __reduce__(self) -> tuple[Callable[[], _Inherited], tuple[()]]:
        return _inherit, ()


def _inherit() -> _Inherited:
    register_with_oml()
    return _Inherited()


class _Finder:
    """Finds the modules of OML and of oml-vit-ext where they are; when all that were begun are there, it registers.

    Not as soon as ``oml.registry`` is there: other modules of OML may be in the middle of importing it, and modules of
    oml-vit-ext, which registering imports, in the middle of importing OML.
    """

    def __init__(self) -> None:
        self._unfinished: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _FOLLOWED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    self._follow(name, spec.loader)
                return spec
        return None

    def _follow(self, name: str, loader: Any) -> None:
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self._unfinished.append(name)
            try:
                execute(module)
            finally:
                self._unfinished.pop()
            if not self._unfinished and _REGISTRIES in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        loader.exec_module = execute_and_register
