"""Small content that is endless for whoever reads it is refused; what people write is not."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oml_vit_ext.common.written_out import check_written_out


def _of_objects(one: Any, other: Any) -> Any:
    array = np.empty(2, dtype=object)
    array[0], array[1] = one, other
    return array


PARTS: dict[str, Callable[[Any, Any], Any]] = {
    "lists": lambda one, other: [one, other],
    "tuples": lambda one, other: (one, other),
    "dicts": lambda one, other: {"a": one, "b": other},
    "arrays": _of_objects,
    "namespaces": lambda one, other: argparse.Namespace(a=one, b=[other]),
}


def doubled(times: int, part: Callable[[Any, Any], Any] = PARTS["lists"]) -> Any:
    """``2 ** times`` values in as many parts as ``times``."""
    content: Any = part(1, 2)
    for _ in range(times):
        content = part(content, content)
    return content


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_parts_that_double_again_and_again(part: Callable[[Any, Any], Any]):
    check_written_out(doubled(10, part))
    with pytest.raises(ValueError, match="stand in each other so often"):
        check_written_out({"content": doubled(40, part)})


def test_content_as_people_write_it():
    shared = list(range(1_000))
    check_written_out({"gnd": [{"easy": shared, "junk": [[1, 2], (3,)]} for _ in range(1_000)], "n": 3, "name": "x"})
    check_written_out([[0] * 3 for _ in range(60_000)])
    check_written_out("text")


def test_a_part_inside_of_itself():
    content: list[Any] = [1]
    content.append({"again": content})
    with pytest.raises(ValueError, match="inside of itself"):
        check_written_out(content)
    check_written_out(content, may_hold_itself=True)
    with pytest.raises(ValueError, match="stand in each other"):
        check_written_out([doubled(40), content], may_hold_itself=True)


def test_very_deep_content():
    content: list[Any] = []
    for _ in range(100_000):
        content = [content]
    check_written_out(content)
    while content:  # taken apart from outside: Python would do it from inside, too deep for some versions
        content = content.pop()
