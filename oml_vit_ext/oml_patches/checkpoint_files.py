"""Checkpoints of trainings on disk: written as a whole or not at all, read without running what is in them."""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from oml_vit_ext.common.checkpoint_values import filled, plain_values
from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.written_out import check_written_out
from oml_vit_ext.extractors.checkpoints import check_unpacked_size, first_reason, reading_paths


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to read and write checkpoints, which by itself leaves half a file when it is interrupted."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write under a temporary name, flush, rename.

        Raises:
            OSError: It could not be written; what was there before is untouched.
        """
        path, before = Path(path), sys.exc_info()[1]
        try:
            with replaced(path) as unfinished, open(unfinished, "wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
            first = _first_error(error, before)
            if not isinstance(first, OSError) and not re.search("inline_container|PytorchStreamWriter", str(first)):
                raise first from None  # an interruption, by a key or a loader process that died
            kept = "the one that was there before is whole" if path.is_file() else "nothing was there before"
            raise OSError(f"Checkpoint {str(path)!r} could not be written, {kept}: {_first_line(error)}") from error

    def load_checkpoint(self, path: Any, map_location: Any = lambda storage, _: storage) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location=map_location)


def read_checkpoint(path: Path, **options: Any) -> dict[str, Any]:
    """What a training has written, with ``torch.load(weights_only=True)``.

    Args:
        path: The file.
        options: Of ``torch.load``. With ``mmap=True`` tensors stay on disk, so that a look is cheap.

    Raises:
        RuntimeError: The file is damaged, or holds more than tensors and plain data.
    """
    try:
        check_unpacked_size(path)
        with zipfile.ZipFile(path) as parts:  # torch writes check sums, but does not compare them
            if damaged := parts.testzip():
                raise RuntimeError(f"the check sum of its part {damaged!r} is wrong")
        with reading_paths(*plain_values()):
            content = torch.load(path, weights_only=True, **options)
        check_written_out(content, may_hold_itself=True)
        _check_stored(content, path.stat().st_size)
        read: dict[str, Any] = filled(content)
        return read
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if "weights_only" in str(error):
            reason = f"holds more than tensors and plain data ({first_reason(error)}): reading it could run any code"
        else:
            reason = f"is damaged or no checkpoint ({_first_line(error)})"
        others = sorted(p.name for p in path.parent.glob("[!.]*.ckpt") if p != path)
        advice = f"beside it: {', '.join(others)}" if others else "there is no other one beside it"
        raise RuntimeError(f"Checkpoint {str(path)!r} {reason}; {advice}.") from error


def _check_stored(content: Any, n_bytes: int) -> None:
    """Raise a ``ValueError`` for a tensor that is larger than its file: one number can stand for billions."""
    waiting, seen = [content], set()
    while waiting:
        part = waiting.pop()
        is_dense = isinstance(part, Tensor) and part.layout == torch.strided and not part.is_nested
        if is_dense and part.nbytes > n_bytes:
            raise ValueError(f"it holds a tensor of shape {tuple(part.shape)}, expected no more than {n_bytes} bytes")
        if isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


def _first_error(error: BaseException, before: BaseException | None) -> BaseException:
    """What began it: where torch's writer is interrupted, it complains of the end of the file besides."""
    while error.__context__ is not None and error.__context__ is not before:
        error = error.__context__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
