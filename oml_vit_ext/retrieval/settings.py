"""How to search: the same four settings for every way in."""

from __future__ import annotations

from dataclasses import dataclass

from oml_vit_ext.common.checks import check_number

EXACT = "Flat"
MEMORY_MB = 256.0
_MOST_MEMORY_MB = 1e9  # a petabyte


@dataclass(frozen=True)
class Settings:
    """What is the same for all queries of a search.

    Args:
        index: ``Flat`` compares everything with everything; any other faiss factory string builds an approximate index.
        search_params: Of an approximate index, e.g. ``nprobe=16`` or ``efSearch=64``.
        memory_mb: Bound for temporary memory, in MB (1e6 bytes).
        verbose: Show progress.

    Raises:
        ValueError: ``index`` or ``search_params`` is no text, or ``memory_mb`` no positive number.
    """

    index: str = EXACT
    search_params: str = ""
    memory_mb: float = MEMORY_MB
    verbose: bool = False

    def __post_init__(self) -> None:
        for name, example in (("index", "'IVF1024,Flat'"), ("search_params", "'nprobe=16'")):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}, expected text, e.g. {example}.")
        if not check_number("memory_mb", self.memory_mb, high=_MOST_MEMORY_MB) > 0:
            raise ValueError(f"memory_mb is {self.memory_mb}, expected a positive number of megabytes.")
