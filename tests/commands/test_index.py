"""``oml-vit-ext index``: what differs from ``test_query.py``, which makes indexes as well."""

from __future__ import annotations

import runpy
import sys

import pandas as pd
import pytest

from helpers import ROOT
from helpers.command_line import fails
from oml_vit_ext.commands.index import shard_of


def test_shards_are_disjoint_whole_and_stable():
    images = pd.DataFrame({"key": [f"{i}.jpg" for i in range(50)]})
    parts = [set(shard_of(images, f"{i}/3").key) for i in range(3)]
    assert set().union(*parts) == set(images.key) and sum(map(len, parts)) == 50
    assert set(shard_of(images[10:], "1/3").key) == parts[1] - set(images.key[:10])


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/2"])
def test_a_wrong_shard_is_told(shard: str):
    with pytest.raises(ValueError, match="expected i/n with i below n"):
        shard_of(pd.DataFrame({"key": ["a"]}), shard)


def test_the_folder_of_the_index_must_be_named():
    assert "--to" in fails("index", "photos", code=2)


def test_the_example_adds_the_bundled_model(monkeypatch: pytest.MonkeyPatch):
    """``examples/search.py`` is the same command with another default model."""
    script = runpy.run_path(str(ROOT / "examples" / "search.py"))
    called: list[list[str]] = []
    main = script["main"]
    monkeypatch.setitem(main.__globals__, "app", lambda arguments, prog_name: called.append(arguments))
    for arguments in (["index", "photos", "--to", "x"], ["query", "a.jpg"], ["index", "p", "--model", "run"]):
        monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
        main()
    assert called[0][-4:-1] == ["--config-name", "irt/predict_demo", "irt/variant=irt_o"]
    assert called[1:] == [["query", "a.jpg"], ["index", "p", "--model", "run"]]
