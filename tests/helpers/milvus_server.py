"""A real Milvus 2.3 server in a process of its own, which can be killed and started again.

The package ``milvus`` of PyPI holds it. It needs other versions than pymilvus 3, so it stands in an environment of its
own: ``make milvus-server`` makes it, or ``OML_VIT_EXT_MILVUS_SERVER`` names the program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("OML_VIT_EXT_MILVUS_SERVER", ROOT / ".venv-milvus/bin/milvus-server"))


class MilvusServer:
    """``start`` returns at once: a client waits until it answers."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(PROGRAM), "--data", str(self.data), "--proxy-port", str(self.port)]
        with (self.data.with_suffix(".log")).open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def answers(self, seconds: float) -> bool:
        """Whether it listens to clients within that time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            time.sleep(0.5)
        return False

    def kill(self) -> None:
        """SIGKILL, to the server as to what started it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
