"""Examples of docstrings are shown as code."""

from __future__ import annotations

import pytest

pytest.importorskip("griffe", reason="the site needs mkdocstrings (pip install oml-vit-ext[docs])")

from helpers.docs import script


def test_an_example_becomes_a_block_of_code():
    text = "Words.\n\n>>> f(1)\n2\n>>> for i in x:\n...     g(i)\n\nMore words, 3 >>> 2."
    expected = "Words.\n\n\n```pycon\n>>> f(1)\n2\n>>> for i in x:\n...     g(i)\n```\n\n\nMore words, 3 >>> 2."
    assert script("griffe_doctests").fenced(text) == expected
