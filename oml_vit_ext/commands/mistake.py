"""One thing that is wrong, or may be, with a config."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """Where it stands in the config, and a sentence; an error stops a run, a warning does not."""

    key: str
    sentence: str
    is_error: bool = True
