"""``~/`` in paths, with a home of the test's own."""

from __future__ import annotations

import pytest

from oml_vit_ext.common.home import argument_with_home, with_home


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")


def test_the_start_of_a_path_alone():
    assert [with_home(p) for p in ("~/a/~/b", "~", "a/~", "~you/a", "~key", "")] == [
        *("/home/me/a/~/b", "/home/me", "a/~", "~you/a", "~key", "")
    ]


@pytest.mark.parametrize(
    ("typed", "expanded"),
    [
        ("~/x", "/home/me/x"),
        ("~/x=1", "/home/me/x=1"),
        ("--to=~/x", "--to=/home/me/x"),
        ("dataset_root=~/x", "dataset_root=/home/me/x"),
        ("+extractor.args.weights=~/x.pth", "+extractor.args.weights=/home/me/x.pth"),
        ("~sampler", "~sampler"),
        ("~sampler=balance", "~sampler=balance"),
        ("seed=1", "seed=1"),
    ],
)
def test_words_of_a_command_line(typed: str, expanded: str):
    assert argument_with_home(typed) == expanded
