"""Files that are replaced as a whole: whoever interrupts never leaves half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def write_frame(frame: pd.DataFrame, file: Path) -> None:
    _replace(file, lambda unfinished: frame.to_csv(unfinished, index=False))


def write_lines(lines: list[str], file: Path) -> None:
    """Without lines there is no file."""
    if lines:
        _replace(file, lambda unfinished: unfinished.write_text("\n".join(lines) + "\n"))
    else:
        file.unlink(missing_ok=True)


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
