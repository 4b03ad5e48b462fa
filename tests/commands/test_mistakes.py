"""All that is wrong with a config."""

from __future__ import annotations

from helpers.configs import composed
from oml_vit_ext.commands.mistakes import Mistake, find_mistakes, told


def test_errors_come_first_and_nothing_twice(tiny: list[str]):
    found = find_mistakes(composed("irt/train_photos", *tiny, "memory_size=100", "optimizer.args.lr=abc"))
    assert [m.is_error for m in found] == sorted((m.is_error for m in found), reverse=True)
    assert len(found) == len(set(found)) and {m.key for m in found} >= {
        "optimizer.args.lr",
        "criterion.args.memory_size",
    }


def test_each_is_one_line():
    assert told([Mistake("a", "a is 1."), Mistake("b", "b is 2.", False)]) == "Error: a is 1.\nWarning: b is 2."
