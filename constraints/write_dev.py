"""Writes constraints/dev.txt: the versions of everything that ``.[dev]`` needs, as they are installed here.

  .venv/bin/python constraints/write_dev.py      # after the tests have passed in that environment

Without CUDA's libraries and what else follows from the platform: torch asks for those that it needs.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).with_name("dev.txt")
OF_THE_PLATFORM = ("nvidia-", "cuda-", "triton", "simsimd", "stringzilla", "hf-xet")
HEADER = """# Versions that work together, for `make test CONSTRAINTS=constraints/dev.txt`; `make constraints` wrote it.
# Some of these versions need Python 3.11.
"""


def needed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """A distribution and all that it needs: name to version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ones = [(canonicalize_name(name), extras)]
    while open_ones:
        one = open_ones.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            installed = distribution(one[0])
        except PackageNotFoundError:  # for another platform or Python
            continue
        found[one[0]] = installed.version
        for text in installed.requires or []:
            requirement = Requirement(text)
            asked = [{"extra": extra} for extra in one[1]] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in asked):
                open_ones.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def main() -> None:
    versions = needed("oml-vit-ext", frozenset({"dev"}))
    del versions["oml-vit-ext"]
    lines = [
        f'{name}=={version.partition("+")[0]}; python_version >= "3.11"\n'
        for name, version in sorted(versions.items())
        if not name.startswith(OF_THE_PLATFORM)
    ]
    FILE.write_text(HEADER + "".join(lines))
    print(f"{FILE}: {len(lines)} libraries")


if __name__ == "__main__":
    main()
