"""Who may reach the app."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from oml_vit_ext.app import Catalog
from oml_vit_ext.app.serve import check_listenable, is_local, serve, warning_for


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


def test_a_port_that_is_taken_is_told_with_one_that_is_free():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port is {port}, which another program uses already: choose") as told:
            check_listenable("127.0.0.1", port)
    check_listenable("127.0.0.1", port)
    if "--port " in str(told.value):
        check_listenable("127.0.0.1", int(str(told.value).split("--port ")[1].rstrip(".")))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])  # the first is kept free for documentation
def test_a_host_that_is_not_this_machine_is_told(host: str):
    with pytest.raises(ValueError, match=f"host is '{host}', expected an address of this machine"):
        check_listenable(host, 8000)
