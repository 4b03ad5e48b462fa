"""How much memory a piece of work needs beyond what was in use before. Imports torch for a GPU only."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


class PeakMemory:
    """The most memory since this was made, in MB (1e6 bytes): of the GPU, or of this process (its resident set)."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        if device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        self._before_mb = self.total_mb()

    def extra_mb(self) -> float:
        """The peak beyond what was in use at the start."""
        return self.total_mb() - self._before_mb

    def total_mb(self) -> float:
        """The peak itself."""
        if self.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated() / 1e6
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
        except (OSError, StopIteration):
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
