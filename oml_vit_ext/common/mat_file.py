"""Structs of MATLAB files, read in a process of its own: a damaged file can end the process that reads it.

The other process runs this file as a script, so it imports scipy alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_TIMEOUT_S = 300
_MOST_TEXT = 2**24  # characters of the columns as JSON; those of CARS196 take a tenth
_MOST_MEMORY = 8 * 2**30  # bytes; the annotations of CARS196 take a thousandth


def read_struct(path: Path, name: str) -> dict[str, list[Any]]:
    """The columns of a struct array in a MATLAB file up to version 7.

    Args:
        path: The file.
        name: The variable, a struct array whose fields are texts or numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or has no such variable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    command = [sys.executable, __file__, str(path), name]
    try:
        # One thread of BLAS: each takes a share of the memory that the process may have.
        settings = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=settings)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} could not be read within {_TIMEOUT_S} s: is it damaged?") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines and done.returncode > 0 else f"reading it ends the process: {done.returncode}"
        raise ValueError(f"{path} cannot be read as a MATLAB file with a struct {name!r} ({reason}).")
    columns: dict[str, list[Any]] = json.loads(done.stdout)
    return columns


def _main() -> None:
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = _MOST_MEMORY if hard == resource.RLIM_INFINITY else min(hard, _MOST_MEMORY)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    import numpy as np
    from scipy.io import loadmat  # type: ignore[attr-defined]

    path, name = sys.argv[1:]
    content = loadmat(path, squeeze_me=True)[name]
    if not content.dtype.names:
        raise ValueError(f"{name} is no struct")
    columns = {field: np.atleast_1d(content[field]).tolist() for field in content.dtype.names}
    text = json.dumps(columns, default=lambda value: value.tolist())
    if len(text) > _MOST_TEXT:  # a small file may be unpacked to any size
        raise ValueError(f"it holds {len(text)} characters, expected annotations of at most {_MOST_TEXT}")
    sys.stdout.write(text)


if __name__ == "__main__":
    sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).parent]
    _main()
