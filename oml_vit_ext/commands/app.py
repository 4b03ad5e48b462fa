"""``oml-vit-ext app``: a search page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oml_vit_ext.commands.options import Collection, Device, MovedRoot, SearchParams, TrustWeights
from oml_vit_ext.common.messages import counted


def app(
    index: Annotated[
        list[str],
        typer.Argument(help="Folders of indexes or of their shards, or Milvus: a file.db, the URL of a server."),
    ],
    reranker: Annotated[Path | None, typer.Option(help="Folder of a re-ranker's run.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this one open it to a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    root: MovedRoot = None,
    search_params: SearchParams = "",
    collection: Collection = "images",
    device: Device = None,
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Largest upload, MB.")] = 20.0,
    trust_weights: TrustWeights = False,
) -> None:
    """Search by image in the browser, and over HTTP.

    The page is at the address that is printed, the endpoint is POST /query there, described at /docs. Nobody but this
    machine can reach it, unless --host says so.

    Examples:

        oml-vit-ext app photo_index

        oml-vit-ext app photo_index other_index --reranker runs/stir --port 9000

        MILVUS_TOKEN=user:password oml-vit-ext app https://HOST:19530 --search-params ef=128

        curl -F image=@cat.jpg -F k=3 http://127.0.0.1:8000/query
    """
    from oml_vit_ext.app import Catalog
    from oml_vit_ext.app.serve import check_listenable, serve, warning_for

    check_listenable(host, port)
    catalog = Catalog.load(
        index,
        reranker=reranker,
        collection=collection,
        root=root,
        search_params=search_params,
        device=device,
        trust_weights=trust_weights,
    )
    for name, service in catalog.services.items():
        typer.echo(f"{name}: {counted(len(service.index), 'image')}")
    if warning := warning_for(host):
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(f"Open http://{host}:{port} (Ctrl+C stops it)")
    serve(catalog, host=host, port=port, max_upload_mb=max_upload_mb)
