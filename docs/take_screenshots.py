"""Takes the pictures of a report and of the app for the documentation, in a real browser.

    python docs/take_screenshots.py report runs/photos/report.html
    python docs/take_screenshots.py app photo_index --reranker runs/stir

The second picks an image of the index and searches with it, with re-ranking and attention.
"""

from __future__ import annotations

import argparse
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH = 1180


def of_report(page: Any, file: Path) -> None:
    page.goto(file.absolute().as_uri())
    page.wait_for_selector("#card img")
    page.select_option("#order", "change" if page.locator("#filter option").count() > 3 else "worst")
    save(page, IMAGES / "report.webp", height=1280)


def of_app(page: Any, folder: Path, reranker: Path | None) -> None:
    from oml_vit_ext.app import Catalog

    with running(Catalog.load([folder], reranker=reranker, device="cpu")) as address:
        page.goto(address)
        page.wait_for_selector("#some img")
        page.click("#some li:nth-child(4) button")
        page.fill("#k", "6")
        page.check("#attention")
        page.click("#search")
        page.wait_for_selector("#found .hits img")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        page.evaluate("scrollTo(0, 0)")
        save(page, IMAGES / "app.webp", height=1000)


@contextmanager
def running(catalog: Any) -> Iterator[str]:
    import uvicorn

    from oml_vit_ext.app.endpoint import make_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(catalog), port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True


def save(page: Any, file: Path, height: int) -> None:
    page.set_viewport_size({"width": WIDTH, "height": height})
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(file, quality=72, method=6)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["report", "app"])
    parser.add_argument("where", type=Path, help="the report's page, or the folder of an index")
    parser.add_argument("--reranker", type=Path, help="folder of a re-ranker's run")
    args = parser.parse_args()

    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.browser import running_chromium

    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(300_000)
        if args.what == "report":
            of_report(page, args.where)
        else:
            of_app(page, args.where, args.reranker)


if __name__ == "__main__":
    main()
