"""A client of Milvus that waits for a server which has gone away, for a stated time, and then says so in a sentence."""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 8.0
# What a server says while it starts, or while its parts look for each other again.
_NOT_YET = re.compile(
    r"not ready|unavailable|unready|not loaded|not fully loaded|no available|not available|offline|channel|"
    r"connect|not healthy|abnormal|retry run out|deadline",
    re.IGNORECASE,
)


class PatientClient:
    """A ``pymilvus.MilvusClient``; calls that the server does not answer are made again for ``patience`` seconds.

    All calls made through it may be repeated without harm: rows have keys, and writing one twice is writing it once.

    Args:
        uri: A file name ending in ``.db``, or a URL.
        token: ``user:password`` or an API key; ``None``: what ``MILVUS_TOKEN`` in the environment says.
        patience: In seconds; for a URL only.

    Raises:
        ImportError: The extra ``milvus`` is not installed.
        ValueError: ``uri`` is neither.
        ConnectionError: No server answered in that time. All methods raise it.
    """

    def __init__(self, uri: str, token: str | None = None, patience: float = 60.0) -> None:
        self._milvus = import_pymilvus()
        if not is_url(uri) and not uri.endswith(".db"):
            raise ValueError(
                f"uri is {uri!r}, expected a file name ending in '.db' or a URL such as 'http://host:19530'."
            )
        self.uri = uri
        token = os.environ.get("MILVUS_TOKEN", "") if token is None else token
        self.patience = patience if is_url(uri) else 0.0
        try:
            self._client = self.patiently(lambda: self._milvus.MilvusClient(uri=uri, token=token))
        except (self._milvus.MilvusException, OSError, ImportError, RuntimeError) as error:
            if isinstance(error, ConnectionError):
                raise
            raise RuntimeError(f"Milvus at {uri!r} cannot be opened: {error}") from error

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self.patiently(lambda: method(*args, **kwargs))

    def close(self) -> None:
        """Without waiting for a server that has gone."""
        self._client.close()

    def patiently(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns; it is called again while the server does not answer."""
        until = time.monotonic() + self.patience
        wait = 0.5
        while True:
            try:
                with _silent_pymilvus(bool(self.patience)):
                    return call()
            except Exception as error:
                if not self.patience or not _is_away(error):
                    raise
                wait = min(2 * wait, _LONGEST_WAIT_S)
                if time.monotonic() + wait > until:
                    raise ConnectionError(
                        f"Milvus at {self.uri!r} has not answered for {self.patience:g} s: {_reason(error)}."
                    ) from error
                if wait == 1.0:
                    _logger.warning("Milvus at %r does not answer; trying for %g s.", self.uri, self.patience)
            time.sleep(wait)


@contextmanager
def _silent_pymilvus(silent: bool) -> Iterator[None]:
    """It logs each failed call with pages of traceback; what a person needs of them is in our errors."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    if silent:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def import_pymilvus() -> Any:
    with suppress(ImportError):  # two first searches at once would each import it halfway: pymilvus goes round Python
        importlib.import_module("scipy.sparse")
    try:
        return importlib.import_module("pymilvus")  # by name: its stubs are no valid Python for mypy
    except ImportError as error:
        raise ImportError(f"An index in Milvus needs pymilvus ({error}): pip install 'oml-vit-ext[milvus]'.") from error


def is_url(uri: str) -> bool:
    return "://" in uri


def _is_away(error: Exception) -> bool:
    """Whether the same call may be answered later; errors of gRPC itself come through, too."""
    name = type(error).__name__
    return "Rpc" in name or (name == "MilvusException" and bool(_NOT_YET.search(str(error))))


def _reason(error: Exception) -> str:
    text = getattr(error, "message", None) or (error.details() if hasattr(error, "details") else str(error))
    return str(text).strip().splitlines()[0].rstrip(".")
