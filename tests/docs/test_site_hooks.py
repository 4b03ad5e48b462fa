"""What the site does to the pages: links that lead out of ``docs/``; what it would load from elsewhere is found."""

from __future__ import annotations

import pytest

pytest.importorskip("mkdocs", reason="the site needs mkdocs (pip install oml-vit-ext[docs])")

from helpers.docs import script

HOOKS = script("site_hooks")


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("README.md", "[t](docs/howto/train.md#resuming)", "[t](howto/train.md#resuming)"),
        ("README.md", "![p](docs/images/retrieval.png)", "![p](images/retrieval.png)"),
        ("README.md", "[list](docs/README.md)", "[list](index.md)"),
        ("README.md", "[log](CHANGELOG.md)", "[log](changelog.md)"),
        ("README.md", "[emoji](examples/demo_data/README.md)", "emoji (`examples/demo_data/README.md`)"),
        ("docs/security.md", "[r](../SECURITY.md)", "[r](reporting.md)"),
        ("docs/howto/train.md", "[w](weights.md)", "[w](weights.md)"),
        ("docs/howto/train.md", "[c](../configs/README.md)", "[c](../configs/README.md)"),
        ("docs/results/speed.md", "[w](../../examples/demo.py)", "w (`examples/demo.py`)"),
        ("docs/faq.md", "[OML](https://github.com/x) [here](#a)", "[OML](https://github.com/x) [here](#a)"),
        ("CHANGELOG.md", "```\n[t](docs/x.md)\n```\n", "```\n[t](docs/x.md)\n```\n"),
    ],
)
def test_links(source: str, link: str, expected: str):
    assert HOOKS.with_links_mended(link, source) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/x"></script>',
        "<img alt=a src=//x.org/a.png>",
        '<link href="https://fonts.googleapis.com/css" rel="stylesheet">',
        "@import url(https://x.org/a.css);",
        "src: url('https://x.org/font.woff2')",
    ],
)
def test_what_would_be_loaded_is_found(html: str):
    assert HOOKS.fetched_from_elsewhere(html)


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://arxiv.org/abs/2102.05644">paper</a>',
        '<script src="assets/a.js"></script>',
        '<link rel="canonical" href="https://x.org/">',
        "background: url(assets/a.png)",
    ],
)
def test_what_is_only_a_link_is_not(html: str):
    assert not HOOKS.fetched_from_elsewhere(html)


def test_new_pages_are_in_the_menu_without_a_line_in_a_file():
    from types import SimpleNamespace

    def page(title: str) -> SimpleNamespace:
        return SimpleNamespace(title=title, children=None, is_homepage=title == "oml-vit-ext")

    def folder(title: str) -> SimpleNamespace:
        return SimpleNamespace(title=title, children=[page("a page")])

    items = [page("oml-vit-ext"), page("New page"), folder("Howto"), folder("Concepts"), folder("New folder")]
    nav = HOOKS.on_nav(SimpleNamespace(items=items))
    assert [item.title for item in nav.items] == ["oml-vit-ext", "Concepts", "How to", "Reference"]
    assert [item.title for item in nav.items[-1].children] == ["New page", "New folder"]
