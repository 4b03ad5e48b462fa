"""The content of a report to one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from oml_vit_ext.common.files import replaced
from oml_vit_ext.pictures.report import charts
from oml_vit_ext.pictures.report.content import Report

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent


def render(report: Report) -> str:
    """The page. Every text of the report is escaped; the page itself runs no script but its own."""
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            report=report,
            data=_for_the_script(report),
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
            width=charts.WIDTH,
            height=charts.HEIGHT,
            n_images=sum(image.uri is not None for image in report.images.values()),
            image_mb=sum(len(image.uri or "") for image in report.images.values()) / 1e6,
        )
    )


def write_report(report: Report, file: Path | str) -> Path:
    """Write the page; returns where it is."""
    file = Path(file).absolute()
    page = render(report)
    with replaced(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return file


def _for_the_script(report: Report) -> dict[str, object]:
    """What the galleries are made of: the browser builds them, so that each picture is in the page once."""
    return {
        "stages": report.stages,
        "compared": report.compared,
        "queries": [asdict(query) for query in report.queries],
        "images": {number: asdict(image) for number, image in report.images.items()},
    }


def _hash(text: str) -> str:
    """By which the page's security policy knows its own style and script: others are not run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
