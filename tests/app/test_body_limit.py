"""Bodies above the limit: by their header, or in parts that do not say how many follow."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from oml_vit_ext.app.body_limit import BodyLimit

LIMIT = 1000


def _answer(parts: list[bytes], headers: list[tuple[bytes, bytes]] | None = None) -> tuple[int, bytes, int]:
    """Status and body of the answer, and how many bytes the application has read."""
    sent: list[dict[str, Any]] = []
    left = list(parts)
    n_read = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal n_read
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RuntimeError("gone")
                n_read += len(message["body"])
                if not message["more_body"]:
                    break
            status = 200
        except RuntimeError:
            status = 400  # as frameworks do with what goes wrong while they read
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

    scope = {"type": "http", "headers": headers or []}
    asyncio.run(BodyLimit(application, LIMIT)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"], n_read


def test_a_body_within_the_limit_passes():
    assert _answer([b"x" * 600, b"x" * 400]) == (200, b"read", 1000)


def test_a_body_that_announces_too_much_is_not_read():
    status, body, n_read = _answer([b"x" * 5000], [(b"content-length", b"5000")])
    assert (status, n_read) == (413, 0)
    assert json.loads(body)["detail"] == "The upload is too large, expected at most 0.001 MB."


def test_a_body_that_announces_nothing_is_cut_off():
    status, _, n_read = _answer([b"x" * 600] * 10)
    assert status == 413 and n_read == 600


def test_what_is_no_request_passes():
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(BodyLimit(application, LIMIT)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
