"""The HTTP side: the page, ``POST /query``, the images of the index, and a page on all that (``/docs``)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from PIL import Image

from oml_vit_ext.app.body_limit import BodyLimit
from oml_vit_ext.app.catalog import Catalog
from oml_vit_ext.app.service import MOST, Options, SearchService
from oml_vit_ext.app.uploads import BadUpload, crop, read_upload
from oml_vit_ext.common.checks import check_number
from oml_vit_ext.images.reading import read_image
from oml_vit_ext.retrieval.index import parse_box

MAX_UPLOAD_MB = 20.0
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_FOLDER = Path(__file__).parent
_PAGE = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
# The page runs its own script and no other, whatever a label or a file name says.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def make_app(
    catalog: Catalog, *, max_upload_mb: float = MAX_UPLOAD_MB, hosts: tuple[str, ...] = LOCAL_HOSTS
) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        catalog: What is searched.
        max_upload_mb: Of a request's body, MB.
        hosts: Names by which the server may be called; ``("*",)`` for any. Others are refused, so that a foreign site
            cannot reach a local server under a name of its own.
    """
    check_number("max_upload_mb", max_upload_mb, 0.001)
    app = FastAPIOffline(
        title="oml-vit-ext: search by image",
        description="`POST /query` with an image answers with the most similar images of an index.",
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=int(max_upload_mb * 1e6))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(BadUpload)
    def bad_upload(_: Request, error: BadUpload) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.exception_handler(ConnectionError)
    def server_away(_: Request, error: ConnectionError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503)

    def service_of(index: str) -> SearchService:
        try:
            return catalog[index]
        except KeyError as error:
            raise HTTPException(404, error.args[0]) from error

    _add_page(app)

    @app.get("/indexes", summary="The indexes, and what can be set")
    def indexes() -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "n_images": len(service.index),
                "reranker": service.has_reranker,
                "first_stage_weight": service.first_stage_weight,
                "max_hits": MOST,
                "max_upload_mb": max_upload_mb,
            }
            for name, service in catalog.services.items()
        ]

    @app.get("/some", summary="Some images of an index, drawn at random")
    def some(
        index: str = "", n: Annotated[int, Query(ge=1, le=MOST)] = 12, seed: Annotated[int, Query(ge=0)] = 0
    ) -> list[dict[str, str]]:
        return service_of(index).some_images(n, seed)

    @app.get("/image", summary="An image of an index, as JPEG", response_class=Response)
    def image(path: str, index: str = "", box: str = "", side: Annotated[int, Query(ge=16, le=2048)] = 320) -> Response:
        picture = _image_of(service_of(index), path, box)
        picture.thumbnail((side, side))
        content = io.BytesIO()
        picture.save(content, format="JPEG", quality=85)  # coded anew: never the bytes of somebody's file
        headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(content.getvalue(), media_type="image/jpeg", headers=headers)

    @app.post("/query", summary="The images most similar to one", responses={400: {}, 404: {}, 413: {}, 503: {}})
    def query(
        options: Annotated[Options, Depends(_options)],
        image: Annotated[UploadFile | None, File(description="An image file")] = None,
        path: Annotated[str, Form(description="Or an image of the index, by its path there")] = "",
        box: Annotated[str, Form(description="With path: the box of that entry of the index")] = "",
        index: Annotated[str, Form(description="Name of the index; by default the first")] = "",
        crop_to: Annotated[str, Form(description="left,top,right,bottom, as shares from 0 to 1")] = "",
    ) -> dict[str, Any]:
        service = service_of(index)
        if image is not None:
            asked = read_upload(image.file.read())
        elif path:
            asked = _image_of(service, path, box)
        else:
            raise BadUpload("There is no image, expected a file in 'image' or a path of the index in 'path'.")
        if crop_to:
            asked = crop(asked, _shares(crop_to))
        answer = service.query(asked, options)
        maps = [_data_uri(picture) for picture in answer.attention]
        return {**answer.to_dict(), "attention": {"query": maps[0], "hits": maps[1:]} if maps else None}

    return app


def _add_page(app: FastAPI) -> None:
    for route, name in _PAGE.items():
        app.add_api_route(f"/{route}", _sender(_FOLDER / name), include_in_schema=False, response_class=FileResponse)


def _sender(file: Path) -> Callable[[], FileResponse]:
    def send() -> FileResponse:
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(file, headers=headers)

    return send


def _options(
    k: Annotated[int, Form(ge=1, le=MOST, description="Hits")] = 10,
    rerank: Annotated[int, Form(ge=0, le=MOST, description="How many of the first hits are re-ranked")] = 0,
    budget: Annotated[float, Form(ge=0, le=1, description="Share of the queries worth re-ranking")] = 1.0,
    first_stage_weight: Annotated[
        float | None, Form(ge=0, le=1, description="λ of the fusion; by default as the re-ranker was configured")
    ] = None,
    attention: Annotated[bool, Form(description="Also pictures of where the model looks")] = False,
) -> Options:
    try:
        return Options(k, rerank, budget, first_stage_weight, attention)
    except ValueError as error:
        raise BadUpload(str(error)) from error


def _image_of(service: SearchService, path: str, box: str) -> Image.Image:
    """An image that is in the index: nothing else on the disk can be had."""
    file = service.file_of(path, box)
    if file is None:
        raise HTTPException(404, f"There is no image {path!r} in the index.")
    try:
        picture = read_image(file)
    except (OSError, ValueError) as error:
        raise HTTPException(404, f"The image {path!r} of the index cannot be read any more.") from error
    of_entry = parse_box(box)
    return picture if of_entry is None else picture.crop(of_entry)


def _shares(text: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BadUpload(
            f"The crop is {text[:80]!r}, expected four numbers: left,top,right,bottom from 0 to 1."
        ) from error
    return left, top, right, bottom


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
