"""A function of OML is replaced once, and looks as before."""

from __future__ import annotations

import inspect
import logging
from types import SimpleNamespace

import pytest

from oml_vit_ext.oml_patches.replacing import replace


def _twice(original):
    return lambda n: 2 * original(n)


def test_the_replacement_wraps_the_original_and_looks_like_it():
    def add_one(n: int) -> int:
        """One more."""
        return n + 1

    owner = SimpleNamespace(add_one=add_one)
    replace(owner, "add_one", _twice, "twice as much")
    assert owner.add_one(3) == 8
    assert owner.add_one.__doc__ == "One more." and inspect.signature(owner.add_one) == inspect.signature(add_one)


def test_it_is_replaced_and_logged_once(caplog: pytest.LogCaptureFixture):
    owner = SimpleNamespace(function=lambda n: n)
    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        for _ in range(3):
            replace(owner, "function", _twice, "twice as much")
    assert owner.function(3) == 6
    assert [record.getMessage() for record in caplog.records] == ["open-metric-learning: twice as much"]


def test_an_oml_without_that_function_is_left_alone(caplog: pytest.LogCaptureFixture):
    owner = SimpleNamespace()
    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        replace(owner, "function", _twice, "twice as much")
    assert not vars(owner) and not caplog.records


def test_changes_with_different_effects_come_on_top_of_each_other_each_once(caplog: pytest.LogCaptureFixture):
    owner = SimpleNamespace(function=lambda n: n)
    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        for _ in range(2):
            replace(owner, "function", _twice, "twice as much")
            replace(owner, "function", lambda original: lambda n: original(n) + 1, "one more")
    assert owner.function(3) == 7 and len(caplog.records) == 2
