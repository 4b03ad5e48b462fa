"""How to search: the same four settings for every way in."""

from __future__ import annotations

from dataclasses import dataclass

EXACT = "Flat"
MEMORY_MB = 256.0


@dataclass(frozen=True)
class Settings:
    """What is the same for all queries of a search.

    Args:
        index: ``Flat`` compares everything with everything; any other faiss factory string builds an approximate index.
        search_params: Of an approximate index, e.g. ``nprobe=16`` or ``efSearch=64``.
        memory_mb: Bound for temporary memory, in MB (1e6 bytes).
        verbose: Show progress.

    Raises:
        ValueError: ``memory_mb`` is not positive.
    """

    index: str = EXACT
    search_params: str = ""
    memory_mb: float = MEMORY_MB
    verbose: bool = False

    def __post_init__(self) -> None:
        if not self.memory_mb > 0:
            raise ValueError(f"memory_mb is {self.memory_mb}, expected a positive number of megabytes.")
