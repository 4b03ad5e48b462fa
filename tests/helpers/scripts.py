"""The example scripts as processes of their own, forked from one that has torch and OML imported already."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers import ROOT

EXAMPLES = ROOT / "examples"
# A server that nothing but imports: unlike this process, it has no threads and ran no backward pass that a fork would
# inherit. Ours is not among them: a script finds it as it does for a user.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "oml.lightning.pipelines.predict",
        "oml.lightning.pipelines.train",
        "oml.lightning.pipelines.train_postprocessor",
        "oml.lightning.pipelines.validate",
        *("faiss", "hydra", "matplotlib.figure", "pytorch_metric_learning.losses", "timm"),
    ]
)


def run_script(name: str, folder: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``examples/<name>.py``, or another script by its path, in ``folder``, as ``python`` would."""
    command = [str(EXAMPLES / f"{name}.py"), *arguments]
    with tempfile.TemporaryDirectory() as printed:
        process = _SERVER.Process(target=_run, args=(command, str(folder), printed))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        stdout, stderr = ((Path(printed) / file).read_text() for file in ("stdout", "stderr"))
    return subprocess.CompletedProcess(command, process.exitcode, stdout, stderr)


def printed_by(name: str, folder: Path, *arguments: str) -> str:
    """What the script printed; it must have ended well."""
    done = run_script(name, folder, *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def few_pictures(data: Path, folder: Path) -> list[str]:
    """Links to twenty of the bundled pictures in a new folder; returns their names."""
    folder.mkdir()
    pictures = sorted((data / "images" / "noto-v1").glob("*.jpg"))[:20]
    for picture in pictures:
        (folder / picture.name).symlink_to(picture.resolve())
    return [picture.name for picture in pictures]


def _run(command: list[str], folder: str, printed: str) -> None:
    for number, file in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(printed, file), os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")
