"""No request body above a limit gets in, whatever its header says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: answers 413 with a sentence once a body has more bytes than allowed; no more of it is read.

    Args:
        app: What it stands before.
        max_bytes: Of a body.
    """

    def __init__(self, app: Asgi, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(send)
            return
        n_bytes, too_large, started = 0, False, False

        async def counted() -> Message:
            nonlocal n_bytes, too_large
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._max_bytes:
                too_large = True
                return {"type": "http.disconnect"}  # the application stops reading
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if not too_large:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, watched)
        except Exception:
            if not too_large:
                raise
        if too_large and not started:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        sentence = f"The upload is too large, expected at most {self._max_bytes / 1e6:g} MB."
        body = json.dumps({"detail": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
