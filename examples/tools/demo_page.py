"""One HTML page that needs no other file: paragraphs, a table, pictures with what they show."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from oml_vit_ext.common.files import replaced

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } dt { font-weight: 600; } pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
"""


class Page:
    """Collects what a page shows, from top to bottom.

    Args:
        title: Of the page.
    """

    def __init__(self, title: str) -> None:
        self._title = escape(title)
        self._parts = [f"<h1>{self._title}</h1>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{escape(text)}</p>")

    def commands(self, lines: Sequence[str]) -> None:
        self._parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")

    def terms(self, meanings: dict[str, str]) -> None:
        items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in meanings.items())
        self._parts.append(f"<dl>{items}</dl>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [_row("th", header), *(_row("td", row) for row in rows)]
        self._parts.append(f"<table>{''.join(lines)}</table>")

    def picture(self, file: Path, text: str) -> None:
        """A picture inside the page, and in words what it shows."""
        kind = "jpeg" if file.suffix == ".jpg" else file.suffix.removeprefix(".")
        content = base64.b64encode(file.read_bytes()).decode()
        self._parts.append(f'<img alt="{escape(text)}" src="data:image/{kind};base64,{content}">')
        self.text(text)

    def write(self, file: Path) -> None:
        head = f"<meta charset='utf-8'><title>{self._title}</title><style>{_STYLE}</style>"
        body = "\n".join(self._parts)
        with replaced(file) as unfinished:
            unfinished.write_text(f"<!doctype html><html lang='en'><head>{head}</head><body>\n{body}\n</body></html>\n")


def _row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>"
