"""A wrong name is told with the right ones, a long list in one line."""

from __future__ import annotations

import pytest

from oml_vit_ext.common.messages import printable, some, unknown_name


def test_a_typo_is_told_with_the_nearest_name_and_all_of_few():
    told = unknown_name("pooling", "gemm", {"gem", "cls", "avg"})
    assert told == "Unknown pooling 'gemm': did you mean 'gem'? Valid: 'avg', 'cls', 'gem'."


def test_several_near_names_are_offered_nearest_first():
    told = unknown_name("transform", "norm_resize", ["norm_resize_dtop", "augs_irt", "norm_resize_irt"])
    assert told.startswith("Unknown transform 'norm_resize': did you mean 'norm_resize_irt' or 'norm_resize_dtop'?")


def test_a_name_far_from_all_is_told_with_the_valid_ones_alone():
    assert unknown_name("part", "xyz", ["stem", "branches"]) == "Unknown part 'xyz'. Valid: 'branches', 'stem'."


def test_of_many_names_only_the_nearest_are_told():
    names = [f"arch_{i}" for i in range(13)]
    assert unknown_name("arch", "qqqq", names) == "Unknown arch 'qqqq'."
    assert "Valid" not in unknown_name("arch", "arch_12", names) and "Valid" in unknown_name("arch", "q", names[:12])


def test_what_is_no_text_is_told_too():
    assert unknown_name("branch", None, ["both"]) == "Unknown branch None. Valid: 'both'."


def test_a_list_is_told_by_its_first_three():
    assert some([]) == "" and some(["a", "b", "c"]) == "a; b; c"
    assert some(["d", "c", "b", "a"]) == "d; c; b; and 1 more"


@pytest.mark.parametrize("name", ["a b.jpg", "日本語 фото ü.jpg", "\udcff.jpg", "\u0645\u200c\u0645.jpg", "a\\b.jpg"])
def test_names_of_files_are_printed_as_they_are(name: str):
    assert printable(name) == name


@pytest.mark.parametrize(
    ("name", "printed"),
    [("a\nb\r.jpg", "a\\nb\\r.jpg"), ("\x1b[31m.jpg", "\\x1b[31m.jpg"), ("gpj.\u202e.exe", "gpj.\\u202e.exe")],
)
def test_a_name_does_not_steer_the_screen(name: str, printed: str):
    assert printable(name) == printed
