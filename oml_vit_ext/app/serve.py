"""Runs the app: on this machine alone, unless somebody says otherwise."""

from __future__ import annotations

import ipaddress
import logging

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
