"""``{"extractor": {name, args}, "transforms": {name, args}}``: what an index keeps to build its model again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oml.registry.models import EXTRACTORS_REGISTRY


def with_absolute_files(config: Any) -> Any:
    """The same config, with files that exist (weights) named by absolute paths: it must work from any folder."""
    if isinstance(config, Mapping):
        return {key: with_absolute_files(value) for key, value in config.items()}
    if isinstance(config, (str, Path)) and Path(config).is_file():
        return str(Path(config).absolute())
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
