"""How much memory a piece of work needs beyond what the process had before."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class PeakMemory:
    peak: float = 0.0  # MB (1e6 bytes), beyond the start


@contextlib.contextmanager
def peak_memory_mb(interval_s: float = 0.02) -> Iterator[PeakMemory]:
    """Watches the resident memory of this process from a thread while the body runs (Linux only)."""
    memory, finished, before = PeakMemory(), threading.Event(), resident_bytes()

    def watch() -> None:
        while not finished.wait(interval_s):
            memory.peak = max(memory.peak, (resident_bytes() - before) / 1e6)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        finished.set()
        thread.join()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
