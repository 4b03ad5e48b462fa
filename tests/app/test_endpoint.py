"""The endpoint as a program uses it, and the page as people do, in a real browser."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from helpers.browser import Watched, running_chromium
from oml_vit_ext.app import Catalog, Options, SearchService
from oml_vit_ext.app.endpoint import make_app


@pytest.fixture(scope="module")
def client(catalog: Catalog) -> TestClient:
    return TestClient(make_app(catalog, max_upload_mb=1), base_url="http://127.0.0.1")


def _upload(photos: Path, name: str = "05.jpg") -> dict[str, Any]:
    return {"image": (name, (photos / name).read_bytes())}


def test_a_query_is_answered_as_the_service_does(client: TestClient, service: SearchService, photos: Path):
    form = {"k": 3, "rerank": 4, "first_stage_weight": 0.5, "crop_to": "0,0,0.5,1"}
    answer = client.post("/query", files=_upload(photos), data=form).json()
    half = Image.open(photos / "05.jpg")
    half = half.crop((0, 0, round(half.width / 2), half.height))
    expected = service.query(half, Options(3, rerank=4, first_stage_weight=0.5)).to_dict()
    for rows in ("hits", "before_reranking"):
        assert [hit["path"] for hit in answer[rows]] == [hit["path"] for hit in expected[rows]]
    assert answer["reranked"] and answer["attention"] is None and set(answer["seconds"]) >= {"re-ranking"}
    assert set(answer["hits"][0]) == {"rank", "path", "distance", "label", "box", "crop"}


def test_an_image_of_the_index_can_be_the_query(client: TestClient):
    answer = client.post("/query", data={"path": "05.jpg", "index": "without a re-ranker", "attention": True}).json()
    assert answer["hits"][0]["path"] == "05.jpg" and len(answer["attention"]["hits"]) == len(answer["hits"]) == 10
    assert answer["attention"]["query"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    ("files", "form", "status", "sentence"),
    [
        ({"image": ("x.jpg", b"no image")}, {}, 400, "The upload cannot be read as an image (not an image)"),
        ({"image": ("x.jpg", b"")}, {}, 400, "The upload is empty"),
        ({}, {}, 400, "There is no image"),
        ({}, {"path": "05.jpg", "crop_to": "1,2"}, 400, "expected four numbers"),
        ({}, {"path": "05.jpg", "crop_to": "0.5,0,0.1,1"}, 400, "left before right"),
        ({}, {"path": "05.jpg", "rerank": 1}, 400, "rerank is 1"),
        ({}, {"path": "05.jpg", "index": "phots"}, 404, "did you mean 'photos'?"),
        ({}, {"path": "../secret.jpg"}, 404, "There is no image '../secret.jpg' in the index."),
        ({"image": ("x.jpg", b"x" * 1_100_000)}, {}, 413, "expected at most 1 MB"),
    ],
)
def test_mistakes_get_one_sentence(client: TestClient, files: dict, form: dict, status: int, sentence: str):
    answer = client.post("/query", files=files or None, data=form)
    assert answer.status_code == status and sentence in answer.json()["detail"]


def test_a_server_behind_it_that_went_away(client: TestClient, catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    def search(*_: Any, **__: Any) -> None:
        raise ConnectionError("Milvus at 'https://host' has not answered for 60 s.")

    monkeypatch.setattr(catalog[""].index, "search", search)
    answer = client.post("/query", data={"path": "05.jpg"})
    assert answer.status_code == 503 and "has not answered for 60 s" in answer.json()["detail"]


def test_numbers_out_of_range(client: TestClient):
    assert client.post("/query", data={"path": "05.jpg", "k": 0}).status_code == 422
    assert client.get("/some", params={"n": 1000}).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["../secret.jpg", "..%2Fsecret.jpg", "/etc/passwd", "not in the index.jpg", "../photos/05.jpg", "05.jpg\0", ""],
)
def test_only_images_of_the_index_are_served(client: TestClient, path: str):
    assert client.get("/image", params={"path": path}).status_code == 404
    assert client.get(f"/image?path={path}".replace("\0", "%00")).status_code == 404
    assert client.get(f"/{path}".replace("\0", "%00")).status_code in (404, 200 if not path else 404)


def test_images_are_small_jpegs(client: TestClient):
    answer = client.get("/image", params={"path": "05.jpg", "side": 32})
    assert answer.headers["content-type"] == "image/jpeg" and max(Image.open(io.BytesIO(answer.content)).size) <= 32


def test_what_there_is(client: TestClient):
    first, second = client.get("/indexes").json()
    assert first["name"] == "photos" and first["n_images"] == 20 and first["first_stage_weight"] == 0.25
    assert not second["reranker"] and second["first_stage_weight"] is None
    assert len(client.get("/some", params={"n": 5}).json()) == 5


def test_the_endpoint_is_described(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/indexes", "/some", "/image", "/query"}
    page = client.get("/docs").text
    assert "swagger-ui" in page and "https://" not in page, "its script is here, not on a foreign server"


@pytest.fixture(scope="module")
def address(catalog: Catalog) -> Iterator[str]:
    """A running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(catalog, max_upload_mb=1), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def desktop(chromium: Any, address: str) -> Watched:
    watched = Watched(chromium, viewport={"width": 1280, "height": 900})
    watched.page.goto(address)
    watched.page.wait_for_selector("#some img")
    return watched


def _search(page: Any) -> list[str]:
    """Press the button; the paths of the final hits."""
    with page.expect_response("**/query"):
        page.click("#search")
    page.wait_for_selector("#search:not([disabled])")
    final = page.locator("#found .list:has(.hits)").first
    return final.locator(".path").all_text_contents() if final.count() else []


def test_upload_crop_and_search(desktop: Watched, photos: Path, service: SearchService):
    page = desktop.page
    assert page.is_disabled("#search")
    page.set_input_files("#file", photos / "05.jpg")
    page.wait_for_selector("#crop:not([hidden])")
    assert len(_search(page)) == 8
    texts = page.inner_text("#found").lower()
    assert "after re-ranking" in texts and "before re-ranking" in texts
    assert "re-ranking" in page.inner_text("#status") and "embedding" in page.inner_text("#status")

    area = page.locator("#query").bounding_box()
    page.mouse.move(area["x"] + 2, area["y"] + 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] - 1)
    page.mouse.up()
    assert page.is_visible("#box") and abs(int(page.input_value("#right")) - 50) <= 2
    page.fill("#rerank", "0")
    box = [int(page.input_value(f"#{edge}")) / 100 for edge in ("left", "top", "right", "bottom")]
    from oml_vit_ext.app import crop

    expected = service.query(crop(Image.open(photos / "05.jpg").convert("RGB"), box), Options(k=8))
    assert _search(page) == [hit.path for hit in expected.hits], "the crop is what is searched"
    page.click("#whole")
    assert not page.is_visible("#box")


def test_a_bad_upload_gets_a_sentence(desktop: Watched, tmp_path: Path):
    page = desktop.page
    (tmp_path / "bad.jpg").write_text("no image")
    page.set_input_files("#file", tmp_path / "bad.jpg")
    page.wait_for_selector("#no-preview:not([hidden])")
    _search(page)
    assert "cannot be read as an image (not an image)" in page.inner_text("#message")
    (tmp_path / "large.jpg").write_bytes(b"x" * 1_100_000)
    page.set_input_files("#file", tmp_path / "large.jpg")
    assert "expected at most 1 MB" in page.inner_text("#message")
    desktop.errors.clear()  # the browser writes down that the server answered 400


def test_pick_one_of_the_index_and_settings(desktop: Watched):
    page = desktop.page
    first = page.evaluate("document.querySelector('#some li:nth-child(2) img').src")
    page.click("#others")
    page.wait_for_function("src => document.querySelector('#some li:nth-child(2) img').src !== src", arg=first)
    page.click("#some li:nth-child(2) button")
    assert (
        page.inner_text("#message") == ""
        and page.get_attribute("#some li:nth-child(2) button", "aria-pressed") == "true"
    )
    page.fill("#k", "5")
    page.fill("#rerank", "5")
    page.fill("#weight", "1")
    page.check("#attention")
    assert len(_search(page)) == 5
    assert page.locator("#found .looks").count() == 6, "the query and five hits"
    assert page.locator("#found .up, #found .down").count() == 0, "the first stage alone: nothing moves"
    page.fill("#budget", "0")
    _search(page)
    assert "Not re-ranked" in page.inner_text("#status")
    page.select_option("#index", "without a re-ranker")
    page.wait_for_selector("#reranking", state="hidden")
    assert page.is_disabled("#search"), "the query was of the other index"


def test_names_that_look_like_html_are_text(desktop: Watched):
    page = desktop.page
    page.fill("#k", "20")
    page.click("#some li:nth-child(1) button")
    assert "<b>x&y.jpg" in _search(page) and "<i>odd</i>" in page.inner_text("#found")
    assert desktop.foreign == [] and desktop.errors == []


def test_on_a_phone_in_the_dark(chromium: Any, address: str):
    phone = Watched(chromium, viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.page.goto(address)
    phone.page.wait_for_selector("#some img")
    phone.page.click("#some li:nth-child(1) button")
    _search(phone.page)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390 and phone.errors == []


def test_the_description_works_without_a_network(chromium: Any, address: str):
    watched = Watched(chromium)
    watched.page.goto(f"{address}/docs")
    watched.page.wait_for_selector(".opblock-post")
    assert watched.foreign == []
