"""Files of weights to tensors by name, whatever wrote them."""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.written_out import check_written_out
from oml_vit_ext.extractors.file_kinds import is_by_torch, is_safetensors, what_else
from oml_vit_ext.extractors.matching import some
from oml_vit_ext.extractors.names import plain_name
from oml_vit_ext.extractors.stand_ins import Value, stand_ins

logger = logging.getLogger(__name__)

StateDict: TypeAlias = dict[str, Tensor]

# Where checkpoints keep their state dict, and which counts first. timm's order: moving averages, then Lightning, OML
# and timm itself, DeiT, DeiT III and MAE; besides, DINO and DINOv2, BEiT v2, I-JEPA; a loop as docs/howto/train.md has.
_NESTED_IN = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "module", "encoder", "extractor")

_READING = threading.RLock()
# Before it, weights_only=True keeps code from running, but a made-up file can make torch write over memory.
_MEMORY_SAFE = (2, 10)


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
        state = load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError, RuntimeError) as error:
        raise RuntimeError(f"{what} {str(path)!r} is not a whole safetensors file ({error}).") from error
    return _plain_names(state, path)


def write_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a ``.safetensors`` file; one of this name is replaced when the new one is whole.

    Raises:
        OSError: The file cannot be written. The library itself raises an error of its own kind.
    """
    with replaced(path) as unfinished:
        unfinished.write_bytes(save(dict(state), metadata))


def read_state_dict(path: Path, *, allow_pickle: bool = False) -> StateDict:
    """All tensors of a file, under the names of the model as it was before anything wrapped it.

    Where a file holds several state dicts, the one that timm takes is taken, a moving average first, and the log says
    which. ``torch.save`` files are read with ``weights_only=True``. OML's checkpoints hold one path object (the folder
    of the checkpoint callback), those of timm, DeiT and DINO their parsed arguments, so exactly the path classes and
    ``argparse.Namespace`` are allowed besides; numbers of numpy and configs of the usual libraries are not read, see
    ``stand_ins.py``.

    Args:
        path: ``.safetensors``, anything that ``torch.save`` wrote, or the ``.index.json`` of a model in several parts
            of either kind. The content counts, not the ending.
        allow_pickle: Read files that hold more than tensors. Such a file can run any code.

    Raises:
        RuntimeError: The file is truncated, is no checkpoint, or holds more than tensors.
    """
    if is_safetensors(path) or (path.suffix == ".safetensors" and not is_by_torch(path) and not what_else(path)):
        return read_safetensors(path)
    if path.name.endswith(".index.json"):
        return _read_parts(path, allow_pickle)
    if kind := what_else(path):
        raise RuntimeError(f"weights {str(path)!r} is not a checkpoint of torch but {kind}.")
    if _torch_version() < _MEMORY_SAFE:
        warnings.warn(
            f"weights {str(path)!r}: torch {torch.__version__} reads files of torch.save, but only from 2.10 on a file "
            f"made to do harm cannot damage its memory. Read files of others as .safetensors, or update torch.",
            stacklevel=2,
        )
    try:
        check_unpacked_size(path)
        # By its path, torch would go by the ending.
        with reading_paths(argparse.Namespace, *stand_ins()), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=not allow_pickle)
        check_written_out(content, may_hold_itself=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() or not is_by_torch(path):
            reason = first_reason(error)
            why = "it begins as none of them" if reason == "unknown" else reason
            raise RuntimeError(f"weights {str(path)!r} is not a checkpoint of torch ({why}).") from error
        raise RuntimeError(
            f"weights {str(path)!r} hold more than tensors, so reading them could run any code. If you trust the "
            f"file, pass allow_pickle=True (in YAML: allow_pickle: true). Reason: {first_reason(error)}"
        ) from error
    except Exception as error:  # a damaged file can fail in any way
        raise RuntimeError(
            f"weights {str(path)!r} cannot be read, is it truncated or damaged? ({type(error).__name__}: {error})"
        ) from error
    try:
        found = _find_tensors(content, path)
    except RecursionError as error:
        raise RuntimeError(f"weights {str(path)!r} hold a dict that holds itself, expected a state dict.") from error
    return _plain_names(_as_large_as_stored(found, path), path)


def _read_parts(index: Path, allow_pickle: bool) -> StateDict:
    """The tensors of all files that an index names, which lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if any(not name or Path(name).name != name or name.endswith(".index.json") for name in names):
            raise ValueError(f"a part is {some(names)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RuntimeError(
            f"weights {str(index)!r} is no index of a model in parts ({type(error).__name__}: {error}), expected "
            f"weight_map with the names of files beside it."
        ) from error
    state: StateDict = {}
    for name in names:
        state |= read_state_dict(existing_file(index.with_name(name)), allow_pickle=allow_pickle)
    return state


def check_unpacked_size(path: Path) -> None:
    """Raise a ``ValueError`` for an archive that is longer unpacked than packed: torch does not compress."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as parts:
        n_bytes = sum(part.file_size for part in parts.infolist())
        compressed = any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist())
    if compressed or n_bytes > path.stat().st_size:
        raise ValueError(f"its parts are compressed, to be unpacked to {n_bytes} bytes, expected a file of torch.save")


def _as_large_as_stored(state: StateDict, path: Path) -> StateDict:
    """A few stored numbers can stand for any number of rows; whoever looks at them would need the memory."""
    n_bytes = path.stat().st_size
    for name, tensor in state.items():
        if tensor.numel() * tensor.element_size() > n_bytes:
            raise RuntimeError(
                f"weights {str(path)!r} hold {name!r} of shape {tuple(tensor.shape)}, expected no more than the "
                f"{n_bytes} bytes of the file."
            )
    return state


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(re.match(r"\d+", minor)[0])  # type: ignore[index]


@contextmanager
def reading_paths(*more: Any) -> Iterator[None]:
    """Within the block, ``torch.load(weights_only=True)`` takes the paths that OML's checkpoints hold, and ``more``.

    One thread at a time: torch keeps what is taken in one list for the process.
    """
    with _READING, torch.serialization.safe_globals([*_path_classes(), *more]):
        yield


def _path_classes() -> list[Any]:
    classes: list[Any] = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    # pathlib is a package since Python 3.13, and files written there name the classes by their new home.
    return classes + [(cls, f"pathlib._local.{cls.__name__}") for cls in classes]


def first_reason(error: Exception) -> str:
    """What ``torch.load(weights_only=True)`` refused, without its advice."""
    text = str(error)
    found = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"WeightsUnpickler error: ([^\n]+)", text)
    return found[1] if found else "unknown" if "weights_only" in text.lower() else text.split("\n")[0].rstrip(".")


def _find_tensors(content: Any, path: Path) -> StateDict:
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if isinstance(content, Mapping):
        holding = [key for key in _NESTED_IN if isinstance(content.get(key), (Mapping, nn.Module)) and content[key]]
        if holding:
            also = [str(key) for key in content if key != holding[0] and _holds_tensors(content[key])]
            if also:
                logger.info("weights %s: %r is used; beside it the file holds %s", path, holding[0], some(also))
            return _find_tensors(content[holding[0]], path)
        others = [key for key, value in content.items() if _holds_weights(key, value)]
        if len(others) == 1:
            logger.info("weights %s: %r is used", path, str(others[0]))
            return _find_tensors(content[others[0]], path)
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
    found = some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    left_out = isinstance(content, Mapping) and any(isinstance(value, Value) for value in content.values())
    hint = " Arrays of numpy are not read: save them as tensors." if left_out else ""
    raise RuntimeError(
        f"weights {str(path)!r} hold no state dict: expected tensors by name, or a dict with one of "
        f"{', '.join(map(repr, _NESTED_IN))}; found {found}.{hint}"
    )


def _holds_weights(key: object, value: Any) -> bool:
    """Whether this part of a checkpoint is a state dict, perhaps deeper inside, under whatever name."""
    if re.search("optim|sched|scaler|callback|loop|hyper|center", str(key).lower()):
        return False
    if not isinstance(value, Mapping):
        return isinstance(value, nn.Module)
    holds_layers = any(isinstance(inner, Tensor) and "." in str(name) for name, inner in value.items())
    return holds_layers or any(_holds_weights(name, inner) for name, inner in value.items())


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, nn.Module) or (
        isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())
    )


def _plain_names(state: StateDict, path: Path) -> StateDict:
    plain: StateDict = {}
    for name, tensor in state.items():
        if plain_name(name) in plain:
            raise RuntimeError(
                f"weights {str(path)!r} hold {plain_name(name)!r} twice, wrapped (as {name!r}) and not, expected once."
            )
        plain[plain_name(name)] = tensor
    return plain
