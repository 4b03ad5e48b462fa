"""Who may reach the app."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from oml_vit_ext.app import Catalog
from oml_vit_ext.app.serve import is_local, serve, warning_for


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_alone(host: str):
    assert is_local(host) and warning_for(host) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_others_are_warned_of(host: str):
    assert not is_local(host) and "There is no password and no encryption" in warning_for(host)


@pytest.fixture()
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    calls: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: calls.append((app, settings)))
    return calls


def test_by_default_it_listens_to_this_machine_and_answers_to_its_names(catalog: Catalog, started: list):
    serve(catalog)
    ((app, settings),) = started
    assert settings["host"] == "127.0.0.1"
    assert TestClient(app, base_url="http://127.0.0.1:8000").get("/indexes").status_code == 200
    assert TestClient(app, base_url="http://attacker.example").get("/indexes").status_code == 400


def test_opened_to_others_it_warns(catalog: Catalog, started: list, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        serve(catalog, host="0.0.0.0", port=9000)
    assert "everybody who reaches this machine" in caplog.text and started[0][1]["port"] == 9000
    assert TestClient(started[0][0], base_url="http://my.lan").get("/indexes").status_code == 200
