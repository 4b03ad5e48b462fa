"""One comparison of a file with a model, and one report of all that differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oml_vit_ext.extractors.matching import check_match, check_values, some, under_prefix

EXPECTED = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}


def test_equal_names_and_shapes_pass():
    check_match({name: tensor + 1 for name, tensor in EXPECTED.items()}, EXPECTED, Path("f.pth"), "this model")


def test_all_that_differs_is_listed():
    found = {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)}
    message = (
        r"weights 'f\.pth' do not fit this model: the file holds x, expected y\. "
        r"Missing: c; unexpected: d; of another shape: b\. Look again\."
    )
    with pytest.raises(RuntimeError, match=message):
        check_match(
            found, EXPECTED, Path("f.pth"), "this model", kinds="the file holds x, expected y", hint="Look again."
        )


def test_values_are_numbers_of_the_kind_that_is_expected():
    expected = {"a": torch.zeros(2), "count": torch.tensor(0)}
    check_values({"a": torch.ones(2).half(), "count": torch.tensor(3), "d": torch.ones(1)}, expected, Path("f.pth"))
    with pytest.raises(RuntimeError, match=r"'f\.pth' hold torch\.int64 numbers, expected floating-point ones: a\."):
        check_values({"a": torch.arange(2), "count": torch.tensor(3)}, expected, Path("f.pth"))
    with pytest.raises(RuntimeError, match=r"'f\.pth' hold NaN or infinity, .*: a\."):
        check_values({"a": torch.tensor([0, torch.inf]), "count": torch.tensor(3)}, expected, Path("f.pth"))


def test_long_lists_are_cut():
    assert some(f"n{i}" for i in range(10)) == "n0, n1, n2, n3, n4, n5, n6, n7 and 2 more"
    assert some([]) == "none"


def test_what_is_outside_of_a_prefix_is_logged(caplog: pytest.LogCaptureFixture):
    state = {"model.a": torch.zeros(1), "criterion.b": torch.zeros(1)}
    with caplog.at_level("INFO"):
        assert list(under_prefix(state, "model.", Path("f.pth"), "the model")) == ["a"]
    assert "weights f.pth: not part of the model: criterion.b" in caplog.text
