"""Examples in docstrings, which Markdown would take for quotations, as blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

# From a prompt to the next empty line, at the margin of the docstring.
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """The text with a fence around each example."""
    return _EXAMPLE.sub(lambda match: f"\n```pycon\n{match[0]}\n```\n", docstring)


class Doctests(griffe.Extension):
    """Does it to every docstring that the site shows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
