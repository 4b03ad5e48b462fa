"""Waiting for a server: against a client that fails as pymilvus does, and a clock that does not wait."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from oml_vit_ext.retrieval.index import milvus_client
from oml_vit_ext.retrieval.index.milvus_client import PatientClient


class MilvusException(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RpcError(Exception):
    def details(self) -> str:
        return "Stream removed (Socket closed)"


class Server:
    """Answers once ``away_for`` seconds are over."""

    def __init__(self, error: Exception, away_for: float = 0.0) -> None:
        self.now, self.away_for, self.error, self.calls = 0.0, away_for, error, 0

    def has_collection(self, name: str) -> bool:
        self.calls += 1
        if self.now < self.away_for:
            raise self.error
        return name == "images"

    def close(self) -> None:
        self.calls = -1


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch):
    def connected(server: Server, uri: str = "http://host:19530", **settings: Any) -> PatientClient:
        pymilvus = SimpleNamespace(MilvusClient=lambda uri, token: server, MilvusException=MilvusException)
        monkeypatch.setattr(milvus_client, "import_pymilvus", lambda: pymilvus)
        clock = SimpleNamespace(monotonic=lambda: server.now, sleep=lambda s: setattr(server, "now", server.now + s))
        monkeypatch.setattr(milvus_client, "time", clock)
        return PatientClient(uri, **settings)

    return connected


@pytest.mark.parametrize(
    "error",
    [
        MilvusException("Fail connecting to server on host:19530, illegal connection params or server unavailable"),
        MilvusException("service not ready[standalone=2]: Abnormal"),
        MilvusException("failed to query: collection not loaded[collection=4707962]"),
        RpcError(),
    ],
)
def test_a_server_that_comes_back_in_time_answers(connect, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(error, away_for=30)
    client = connect(server, patience=60)
    with caplog.at_level(logging.WARNING):
        assert client.has_collection("images") is True and client.has_collection("other") is False
    assert 30 <= server.now < 40
    assert [r.getMessage() for r in caplog.records] == [
        "Milvus at 'http://host:19530' does not answer; trying for 60 s."
    ]


@pytest.mark.parametrize("error", [MilvusException("server unavailable\nmore"), RpcError()])
def test_one_that_does_not_is_named_with_the_time(connect, error: Exception) -> None:
    server = Server(error, away_for=1e9)
    client = connect(server, patience=20)
    with pytest.raises(ConnectionError, match=r"^Milvus at 'http://host:19530' has not answered for 20 s: .*[^.]\.$"):
        client.has_collection("images")
    assert server.now <= 20


@pytest.mark.parametrize(
    ("error", "uri"),
    [
        (MilvusException("the dimension is 8, expected 16"), "http://host:19530"),
        (ValueError("no such argument"), "http://host:19530"),
        (MilvusException("server unavailable"), "index.db"),  # milvus-lite: nobody to wait for
    ],
)
def test_other_errors_come_at_once(connect, error: Exception, uri: str) -> None:
    server = Server(error, away_for=1)
    with pytest.raises(type(error), match=str(error)[:10]):
        connect(server, uri).has_collection("images")
    assert server.now == 0 and server.calls == 1


def test_leaving_does_not_wait(connect) -> None:
    server = Server(RpcError(), away_for=1e9)
    connect(server).close()
    assert server.calls == -1 and server.now == 0


def test_a_place_that_is_neither_file_nor_url_is_refused() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(ValueError, match=r"uri is 'index', expected a file name ending in '\.db' or a URL"):
        PatientClient("index")
