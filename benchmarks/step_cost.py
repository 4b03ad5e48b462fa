"""What one call costs: time and memory, on the CPU and on CUDA."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

# The profiler that counts the memory would report each start and stop on the terminal.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, profile

from peak_memory import PeakMemory

Step = Callable[[], Any]


def seconds(step: Step, device: str) -> float:
    """Time of one call, in seconds, until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_extra_mb(step: Step, device: str) -> float:
    """Most memory that torch held at once beyond what it held before the step, in MB (1e6 bytes)."""
    if device == "cuda":
        memory = PeakMemory(device)
        step()
        return memory.extra_mb()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 1e6
