"""``oml-vit-ext app``: a search page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def app(
    index: Annotated[list[Path], typer.Argument(help="Folders of indexes.")],
    reranker: Annotated[Path | None, typer.Option(help="Folder of a re-ranker's run.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this one open it to a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    root: Annotated[Path | None, typer.Option(help="Where the images are now, if they have moved.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: the GPU if there is one.")] = None,
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Largest upload, MB.")] = 20.0,
    trust_weights: Annotated[
        bool, typer.Option(help="Read the index's files of weights even if they can run code.")
    ] = False,
) -> None:
    """Search by image in the browser, and over HTTP.

    The page is at the address that is printed, the endpoint is POST /query there, described at /docs. Nobody but this
    machine can reach it, unless --host says so.

    Examples:

        oml-vit-ext app photo_index

        oml-vit-ext app photo_index other_index --reranker runs/stir --port 9000

        curl -F image=@cat.jpg -F k=3 http://127.0.0.1:8000/query
    """
    from oml_vit_ext.app import Catalog
    from oml_vit_ext.app.serve import serve, warning_for

    catalog = Catalog.load(index, reranker=reranker, root=root, device=device, trust_weights=trust_weights)
    for name, service in catalog.services.items():
        typer.echo(f"{name}: {len(service.index)} images")
    if warning := warning_for(host):
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(f"Open http://{host}:{port} (Ctrl+C stops it)")
    serve(catalog, host=host, port=port, max_upload_mb=max_upload_mb)
