"""``~/`` at the start of a path: shells expand it in front of a word alone, not in ``key=~/photos`` or in a file."""

from __future__ import annotations

import os


def with_home(text: str) -> str:
    """The path with the user's folder in the place of ``~/``; anything else as it is.

    >>> with_home("photos"), with_home("~key"), with_home("~/photos") == os.path.expanduser("~/photos")
    ('photos', '~key', True)
    """
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def argument_with_home(argument: str) -> str:
    """The same for a word of a command line: also in ``--option=~/photos`` and ``key=~/photos``.

    ``~key`` stays: so Hydra is told to remove a key.
    """
    name, equals, value = argument.partition("=")
    return f"{name}={with_home(value)}" if equals and not name.startswith("~/") else with_home(argument)
