"""Writes the tables of the pages from their data: ``docs/results/data/*.csv`` and ``docs/results/zoo.json``.

A page has, where a table is to stand,

    <!-- table: data/dtop_photos.csv -->
    <!-- end of table -->

with the file relative to the page, and for a JSON file the columns after it. Change the data, then call
``python docs/fill_tables.py``; a test fails while a page is stale.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_BLOCK = re.compile(r"(<!-- table: (\S+?)(?: ([\w,]+))? -->\n)(?:.*?)(<!-- end of table -->)", re.DOTALL)
_KNOWN = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "ImageNet's",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "0.5, 0.5",
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)): "CLIP's",
}


def filled(markdown: str, folder: Path) -> str:
    """A page with its tables as the data have them."""

    def fill(match: re.Match[str]) -> str:
        start, file, columns, end = match.groups()
        rows = _rows(folder / file, columns.split(",") if columns else [])
        header, *body = rows
        lines = [f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in (header, *body)]
        return "".join([start, "\n", lines[0], "|", "---|" * len(header), "\n", *lines[1:], "\n", end])

    return _BLOCK.sub(fill, markdown)


def _rows(file: Path, columns: list[str]) -> list[list[str]]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as opened:
            return list(csv.reader(opened))
    header = [name.replace("_", " ") for name in columns]
    return [header, *([_cell(row, name) for name in columns] for row in json.loads(file.read_text()))]


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "mean_and_std":
        key = tuple(row["mean"]), tuple(row["std"])
        return _KNOWN.get(key, f"{key[0]}, {key[1]}")  # type: ignore[call-overload]
    if name == "parameters":
        return f"{row[name] / 1e6:.0f} M"
    if name == "patch":
        return f"{row[name]} px" + (", stem" if row["stem"] else "")
    if name == "size":
        return f"{row[name]} px"
    return f"`{row[name]}`" if name in ("weights", "config") else str(row[name])


def main() -> None:
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := filled(text, page.parent)) != text:
            page.write_text(new, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
