"""Runs the app: on this machine alone, unless somebody says otherwise."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket

from oml_vit_ext.app.catalog import Catalog

logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 8000


def is_local(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def warning_for(host: str) -> str:
    """What somebody should know who opens the app to others; empty for this machine alone."""
    if is_local(host):
        return ""
    return (
        f"host is {host!r}: everybody who reaches this machine can search the index and see its images. There is no "
        f"password and no encryption; put a server in front of it that has both."
    )


def check_listenable(host: str, port: int) -> None:
    """Raise a ``ValueError`` unless a server can listen there: before a model is loaded, not after.

    Raises:
        ValueError: Another program listens to the port, it needs other rights, or the host is not this machine.
    """
    error = _why_not(host, port)
    if error is None:
        return
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        raise ValueError(f"host is {host!r}, expected an address of this machine, e.g. {HOST!r}.") from error
    free = next((p for p in range(port + 1, min(port + 100, 65536)) if _why_not(host, p) is None), None)
    instead = f", e.g. --port {free}" if free else ""
    why = "which another program uses already" if error.errno == errno.EADDRINUSE else f"which fails ({error.strerror})"
    raise ValueError(f"port is {port}, {why}: choose another one{instead}.") from error


def _why_not(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # as the server itself: a port whose last connections are just closing is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def serve(catalog: Catalog, *, host: str = HOST, port: int = PORT, max_upload_mb: float | None = None) -> None:
    """Serve the page and the endpoint until interrupted.

    Args:
        catalog: What is searched.
        host: Address to listen on; with another one than this machine's own, a warning is logged.
        port: Port to listen on.
        max_upload_mb: Of a request; by default 20.

    Raises:
        RuntimeError: The extra ``app`` is not installed.
    """
    try:
        import uvicorn

        from oml_vit_ext.app.endpoint import LOCAL_HOSTS, MAX_UPLOAD_MB, make_app
    except ModuleNotFoundError as error:
        raise RuntimeError(f'The app needs {error.name}: pip install "oml-vit-ext[app]".') from error

    if warning := warning_for(host):
        logger.warning(warning)
    hosts = LOCAL_HOSTS if is_local(host) else ("*",)
    app = make_app(catalog, max_upload_mb=MAX_UPLOAD_MB if max_upload_mb is None else max_upload_mb, hosts=hosts)
    uvicorn.run(app, host=host, port=port, log_level="warning")
