"""What mkdocs does besides: the start page from the README, links that lead out of ``docs/``, the order of the menu.

A page that is new in a folder is in the menu without a line here. The site has to work without a network: a built page
that would load anything from elsewhere ends the build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocs.structure.nav import Section

# Lists in the examples of docstrings look like references, [a][b], and are none.
logging.getLogger("mkdocs.plugins.mkdocs_autorefs").setLevel(logging.ERROR)

ROOT = Path(__file__).parents[1]
# Files of the repository that become pages; links to them lead there.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "CONTRIBUTING.md": "contributing.md",
}
LIST_OF_PAGES = "README.md"  # of docs/, which the menu replaces
SECTIONS = {
    "concepts": "Concepts",
    "howto": "How to",
    "names": "Names",
    "results": "Results",
    "configs": "Configs",
    "api": "API",
    "extractors": "Extractors",
    "losses": "Losses",
    "optimizers": "Optimizers",
    "pairwise_models": "Pairwise models",
    "postprocessors": "Postprocessors",
    "samplers": "Samplers",
    "transforms": "Transforms",
}
FIRST = ("Concepts", "How to", "Names", "Results")
REST = "Reference"  # what lies in docs/ itself, and folders that are not named above

_FENCED = re.compile(r"(^```.*?^```\n)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
# What a browser fetches by itself: scripts, style sheets, images, fonts.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'> ]+|"
    r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preconnect|preload|icon))[^>]*\bhref=[\"']?(?:https?:)?//[^\"'> ]+|"
    r"@import[^;]*(?:https?:)?//[^;]+|url\([\"']?https?://[^)]+"
)


def on_files(files: Any, config: Any) -> Any:
    """Pages of files that lie outside of ``docs/``."""
    for file in list(files):
        if file.src_uri == LIST_OF_PAGES:
            files.remove(file)
    for source, page in PAGES.items():
        text = with_links_mended((ROOT / source).read_text(encoding="utf-8"), source)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page of ``docs/``; the pages made above have theirs already."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return with_links_mended(markdown, f"docs/{page.file.src_uri}")


def with_links_mended(markdown: str, source: str) -> str:
    """Links of a file of the repository as the site has them.

    A link to a file that is no page becomes its words with the file's name: the site does not hold it.

    Args:
        markdown: Of the file.
        source: Where it lies in the repository.
    """
    at = PAGES.get(source) or source.removeprefix("docs/")

    def mend(match: re.Match[str]) -> str:
        bang, words, target = match.groups()
        file, hash_sign, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not file:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        if path == "docs/README.md":
            path = "README.md"
        if path in PAGES:
            there = PAGES[path]
        elif path.startswith("docs/"):
            there = path.removeprefix("docs/")
        else:
            return words if path in words else f"{words} (`{path}`)"
        return f"{bang}[{words}]({posixpath.relpath(there, posixpath.dirname(at) or '.')}{hash_sign}{anchor})"

    parts = _FENCED.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(mend, part) for i, part in enumerate(parts))


def on_nav(nav: Any, **_: Any) -> Any:
    """The start page, the folders of ``FIRST``, and everything else under one heading."""
    _name(nav.items)
    start = [item for item in nav.items if getattr(item, "is_homepage", False)]
    first = sorted((item for item in nav.items if item.title in FIRST), key=lambda item: FIRST.index(item.title))
    rest = Section(REST, [item for item in nav.items if item not in start and item not in first])
    for item in rest.children:
        item.parent = rest
    nav.items[:] = [*start, *first, rest]
    return nav


def _name(items: list[Any]) -> None:
    for item in items:
        if getattr(item, "children", None):
            item.title = SECTIONS.get(item.title.lower().replace(" ", "_"), item.title)
            _name(item.children)


def fetched_from_elsewhere(html: str) -> list[str]:
    """What a browser would load from another place while it shows this text of HTML or CSS."""
    return _FETCHED.findall(html)


def on_post_build(config: Any, **_: Any) -> None:
    """Look through what was built.

    Raises:
        PluginError: A page is not complete without a network.
    """
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css") and (found := fetched_from_elsewhere(file.read_text(encoding="utf-8"))):
            raise PluginError(f"{file} would load {found[0]}: the site has to work without a network.")
