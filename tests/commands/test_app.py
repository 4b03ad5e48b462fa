"""``app`` from its command line, up to the server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import oml_vit_ext.app.serve
from helpers.trainings import IRT, RESIZE
from oml_vit_ext.commands.app import app
from oml_vit_ext.retrieval import Embedder, SearchIndex


@pytest.fixture()
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        oml_vit_ext.app.serve, "serve", lambda catalog, **how: calls.append({"catalog": catalog, **how})
    )
    monkeypatch.setattr(oml_vit_ext.app.serve, "check_listenable", lambda host, port: None)
    return calls


def _call(*arguments: str):
    program = typer.Typer()
    program.command()(app)
    return CliRunner().invoke(program, list(arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_slice: Path) -> Path:
    """An index by a model whose weights a config names."""
    import torch

    made = tmp_path_factory.mktemp("app_command")
    (made / "photos").mkdir()
    for file in sorted((demo_slice / "images/noto").glob("*.jpg"))[:6]:
        (made / "photos" / file.name).symlink_to(file)
    torch.manual_seed(0)
    backbone = Embedder.from_config(IRT, RESIZE, device="cpu").extractor.backbone
    torch.save(backbone.state_dict(), made / "weights.pth")
    config = {"name": "irt", "args": {**IRT["args"], "weights": str(made / "weights.pth")}}
    index, _ = SearchIndex.build(made / "photos", Embedder.from_config(config, RESIZE, device="cpu"))
    index.save(made / "photo_index")
    return made / "photo_index"


def test_it_says_where_to_look_and_listens_to_this_machine(folder: Path, served: list[dict[str, Any]]):
    done = _call(str(folder), "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "photo_index: 6 images" in done.output and "http://127.0.0.1:8000" in done.output
    assert served[0]["host"] == "127.0.0.1" and list(served[0]["catalog"].services) == ["photo_index"]
    assert "Warning" not in done.output


def test_opened_to_others_it_warns(folder: Path, served: list[dict[str, Any]]):
    done = _call(str(folder), "--host", "0.0.0.0", "--port", "9000", "--device", "cpu")
    assert "Warning: host is '0.0.0.0': everybody" in done.output and served[0]["port"] == 9000


def test_no_index(tmp_path: Path, served: list[dict[str, Any]]):
    done = _call(str(tmp_path / "none"))
    assert done.exit_code != 0 and "is not an index" in str(done.exception) and not served


def test_a_taken_port_is_told_before_the_index_is_read():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = _call("none", "--port", str(other.getsockname()[1]))
    assert "which another program uses already" in str(done.exception)
