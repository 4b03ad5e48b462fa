"""``{"extractor": {name, args}, "transforms": {name, args}}``: what an index keeps to build its model again."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from oml.registry.models import EXTRACTORS_REGISTRY


def plain(config: Any) -> Any:
    """The same config in dictionaries, lists, text and numbers, whatever object holds it: Hydra's, a dataclass, ...

    Raises:
        ValueError: There is something in it that a file cannot keep.
    """
    if config is None or isinstance(config, (bool, int, float, str)):
        return config.value if isinstance(config, Enum) else config
    if is_dataclass(config) and not isinstance(config, type):
        return {field.name: plain(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, (argparse.Namespace, SimpleNamespace)):
        return plain(vars(config))
    if hasattr(config, "keys") and hasattr(config, "__getitem__"):
        return {str(key): plain(config[key]) for key in config.keys()}  # noqa: SIM118  (not every one iterates over keys)
    if isinstance(config, os.PathLike):
        return os.fspath(config)
    if isinstance(config, (np.ndarray, np.generic)):
        return plain(config.tolist())
    if isinstance(config, Enum):
        return plain(config.value)
    if isinstance(config, (Sequence, Set)) and not isinstance(config, (bytes, bytearray)):
        return [plain(value) for value in config]
    raise ValueError(
        f"The config of the model holds {config!r} of type {type(config).__name__}, expected text, numbers, lists and "
        f"dictionaries: an index keeps it in a file."
    )


def with_absolute_files(config: Any) -> Any:
    """The same config, plain, with files that exist (weights) named by absolute paths: it must work from any folder."""
    return _absolute(plain(config))


def part(name: str, config: Any) -> dict[str, Any]:
    """One part of a config, ``{name, args}``, as :func:`with_absolute_files`; ``args`` may be left out.

    Raises:
        ValueError: It has another form.
    """
    found = with_absolute_files(config)
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or not set(found) <= {"name", "args"}:
        raise ValueError(f"The config of the {name} is {found!r:.200}, expected the form {{name: ..., args: {{...}}}}.")
    if not isinstance(found.get("args") or {}, dict):
        raise ValueError(f"args of the {name} {found['name']!r} is {found['args']!r:.80}, expected names and values.")
    return {"name": found["name"], "args": found.get("args") or {}}


def _absolute(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _absolute(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_absolute(value) for value in config]
    if isinstance(config, str) and config.startswith("local-dir:"):
        return "local-dir:" + os.path.abspath(config.removeprefix("local-dir:"))
    if isinstance(config, str) and config and os.path.isfile(config):
        return os.path.abspath(config)
    return config


def check_runs_no_code(config: Mapping[str, Any]) -> None:
    """Refuse a config from elsewhere whose files of weights can run code when they are read.

    Those are files read with ``allow_pickle``, and all files of extractors of other packages: OML's unpickle them.

    Raises:
        ValueError: There is such a file.
    """
    for part in _mappings(config["extractor"]):
        if part.get("allow_pickle"):
            raise ValueError(_refusal("asks for allow_pickle"))
        extractor = EXTRACTORS_REGISTRY.get(str(part.get("name")))
        if extractor is None or extractor.__module__.startswith("oml_vit_ext."):
            continue
        for value in _texts(part.get("args")):
            if Path(value).expanduser().exists():
                raise ValueError(_refusal(f"lets the extractor {part['name']!r} read {value!r}, perhaps with pickle"))


def _refusal(what: str) -> str:
    return (
        f"The stored config of the model {what}: such a file can run any code. If you trust who made the index "
        f"and the file, pass trust_weights=True."
    )


def _mappings(config: Any) -> Iterator[Mapping[str, Any]]:
    """The config itself and all mappings in it."""
    if isinstance(config, Mapping):
        yield config
    for value in _children(config):
        yield from _mappings(value)


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    for value in _children(config):
        yield from _texts(value)


def _children(config: Any) -> list[Any]:
    if isinstance(config, Mapping):
        return list(config.values())
    return list(config) if isinstance(config, (list, tuple)) else []
