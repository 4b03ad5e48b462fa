"""Changes of OML: which there are, and that each can be turned off."""

from __future__ import annotations

import re

import pytest

from helpers import ROOT
from oml_vit_ext import oml_patches

NAMES = ["strict_arguments", "freezing", "sampler_epochs", "image_reader", "lonely_queries", "new_transforms"]
NAMES += ["resume", "embedding_loader", "postprocessor_embeddings", "search_from_config", "dead_workers"]
NAMES += ["unknown_names"]


@pytest.fixture()
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the changes that ``apply`` makes."""
    names: list[str] = []
    functions = {
        "build_losses_strictly": "strict_arguments",
        "build_samplers_strictly": None,
        "freeze_in_training": "freezing",
        "introduce_samplers": "sampler_epochs",
        "read_upright_where_asked": "image_reader",
        "warn_of_lonely_queries": "lonely_queries",
        "take_new_transforms": "new_transforms",
        "resume_trainings": "resume",
        "validate_on_embeddings": "embedding_loader",
        "hand_over_embeddings": "postprocessor_embeddings",
        "search_as_configured": "search_from_config",
        "name_dead_workers": "dead_workers",
        "tell_unknown_names": "unknown_names",
    }
    for function, name in functions.items():
        monkeypatch.setattr(oml_patches, function, lambda *_, name=name: names.append(name) if name else None)
    return names


@pytest.mark.parametrize(
    ("without", "expected"),
    [("", NAMES), ("all", []), ("freezing", [n for n in NAMES if n != "freezing"]), (" freezing , all", [])],
)
def test_each_change_can_be_turned_off(
    without: str, expected: list[str], made: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(oml_patches.WITHOUT, without)
    oml_patches.apply({}, {}, {})
    assert made == expected


def test_an_unknown_name_is_told_before_anything_is_changed(made: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(oml_patches.WITHOUT, "frezing")
    with pytest.raises(ValueError, match=r"OML_VIT_EXT_WITHOUT.*'frezing': did you mean 'freezing'"):
        oml_patches.apply({}, {}, {})
    assert made == []


def test_the_documentation_lists_every_change(made: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(oml_patches.WITHOUT, raising=False)
    oml_patches.apply({}, {}, {})
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/oml_changes.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(made)
