"""Whether half precision makes anything faster on the device that a model is on."""

from __future__ import annotations

import logging
import platform
from functools import cache

import torch

logger = logging.getLogger(__name__)


def pays(asked: bool, device: torch.device) -> bool:
    """Whether to compute in half precision: if it is asked for and the device has units for it.

    A CPU without them takes several times as long in bfloat16 as in float32; the log says so once.
    """
    if not asked or device.type != "cpu" or has_bf16_units():
        return asked
    _say_once()
    return False


def has_bf16_units() -> bool:
    """Whether this CPU multiplies matrices in bfloat16: AVX512-BF16 or AMX on x86, the BF16 extension on ARM."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        checks = [getattr(torch.cpu, f"_is_{units}_supported", None) for units in ("avx512_bf16", "amx_tile")]
        return any(check() for check in checks if check is not None)
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(check is not None and check())


@cache
def _say_once() -> None:
    logger.warning("use_fp16: this CPU has no units for bfloat16, in which it would be slower; computing in float32")
