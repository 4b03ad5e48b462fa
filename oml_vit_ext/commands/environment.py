"""What is installed, which devices there are, and what is known not to go together."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from oml_vit_ext.common.messages import counted

_CLASHES = {
    "setuptools": ("81", "Lightning 2.1, which OML's pipelines need, imports pkg_resources, which is gone from 81 on"),
    "numpy": ("2", "OML 4 is made for numpy 1"),
    "pytorch-lightning": ("2.1.3", "OML's pipelines are made for up to 2.1.2"),
    "pyarrow": ("21", "pymilvus needs an older one beside numpy 1"),
}


def versions() -> dict[str, str]:
    """Version of Python, of this package and of all that it requires, extras included."""
    names = ["oml-vit-ext", *sorted({_name_of(text) for text in requires("oml-vit-ext") or []})]
    found = {"python": sys.version.split()[0]}
    for name in names:
        found[name] = installed(name) or "–"
    return found


def installed(name: str) -> str | None:
    """The version of a distribution, or ``None``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _name_of(requirement: str) -> str:
    """``numpy<2; extra == "x"`` -> ``numpy``"""
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found else requirement


def _numbers(version: str) -> tuple[int, ...]:
    """``2.1.2+cpu`` -> ``(2, 1, 2)``"""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])))


def devices() -> list[str]:
    """One line for the CPU, one for each GPU."""
    import os

    import torch

    from oml_vit_ext.reranking.precision import has_bf16_units

    units = "has units for bf16" if has_bf16_units() else "no units for bf16: half precision is slower"
    lines = [
        f"CPU  {counted(os.cpu_count() or 1, 'core')}, torch uses {counted(torch.get_num_threads(), 'thread')}; {units}"
    ]
    for i in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        lines.append(f"GPU  {known.name}, {known.total_memory / 1e9:.0f} GB, {bf16}")
    return lines if len(lines) > 1 else [*lines, "GPU  none that torch can use"]


def clashes() -> list[str]:
    """What is installed and known not to work together, each with the command that mends it."""
    found = []
    for name, (below, why) in _CLASHES.items():
        there = installed(name)
        if there is not None and _numbers(there) >= _numbers(below):
            found.append(f"{name} {there}: {why}. Mend: pip install '{name}<{below}'")
    torch, vision = installed("torch") or "", installed("torchvision") or ""
    if "+" in torch and "+" in vision and torch.split("+")[1] != vision.split("+")[1]:
        found.append(
            f"torch {torch} and torchvision {vision} are built for different devices. Mend: install both from the same "
            f"index, e.g. pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        found.append(
            f"torchvision {vision} cannot be imported beside torch {torch} ({error}). Mend: install both from the same "
            f"index, e.g. pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    return found
