"""Files of weights to tensors by name, whatever wrote them."""

from __future__ import annotations

import pathlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from oml_vit_ext.extractors.matching import some

StateDict: TypeAlias = dict[str, Tensor]

# Where checkpoints keep their state dict: Lightning and OML, DeiT, DINO, timm's EMA.
_NESTED_IN = ("state_dict", "model", "teacher", "state_dict_ema", "model_ema")


def existing_file(file: str | Path, what: str = "weights") -> Path:
    """The path of a file that exists, ``~`` expanded.

    Args:
        file: Its name.
        what: What it is, for the message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{what} {str(file)!r}: there is no such file (looked for {path.absolute()}).")
    return path


def read_safetensors(path: Path, what: str = "weights") -> StateDict:
    """All tensors of a ``.safetensors`` file.

    Raises:
        RuntimeError: The file is truncated or something else; the sentence begins with ``what``.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(f"{what} {str(path)!r} is not a whole safetensors file ({error}).") from error


def read_state_dict(path: Path, *, allow_pickle: bool = False) -> StateDict:
    """All tensors of a file, keys as they are in it.

    ``torch.save`` files are read with ``weights_only=True``. OML's checkpoints hold one path object (the folder
    of the checkpoint callback), so exactly the path classes are allowed besides.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote.
        allow_pickle: Read files that hold more than tensors. Such a file can run any code.

    Raises:
        RuntimeError: The file is truncated, is no checkpoint, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with torch.serialization.safe_globals(path_classes()):
            content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise RuntimeError(f"weights {str(path)!r} is not a checkpoint of torch ({error}).") from error
        raise RuntimeError(
            f"weights {str(path)!r} hold more than tensors, so reading them could run any code. If you trust the "
            f"file, pass allow_pickle=True (in YAML: allow_pickle: true). Reason: {first_reason(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise RuntimeError(f"weights {str(path)!r} cannot be read, is it truncated? ({error})") from error
    return _find_tensors(content, path)


def path_classes() -> list[Any]:
    """What OML's checkpoints hold beyond plain data, for ``torch.serialization.safe_globals``."""
    classes: list[Any] = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    # pathlib is a package since Python 3.13, and files written there name the classes by their new home.
    return classes + [(cls, f"pathlib._local.{cls.__name__}") for cls in classes]


def first_reason(error: Exception) -> str:
    """What ``torch.load(weights_only=True)`` refused."""
    found = re.search(r"GLOBAL ([\w.]+)|WeightsUnpickler error: ([^\n]+)", str(error))
    return next((g for g in found.groups() if g), "unknown") if found else "unknown"


def _find_tensors(content: Any, path: Path) -> StateDict:
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if isinstance(content, Mapping):
        for key in _NESTED_IN:
            if isinstance(content.get(key), (Mapping, nn.Module)):
                return _find_tensors(content[key], path)
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
    found = some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise RuntimeError(
        f"weights {str(path)!r} hold no state dict: expected tensors by name, or a dict with one of "
        f"{', '.join(map(repr, _NESTED_IN))}; found {found}."
    )
