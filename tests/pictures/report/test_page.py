"""The page, as a file and in a real browser: clicked, by keyboard, on a phone, in the dark, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import Watched, running_chromium
from helpers.reports import HOSTILE, PIXEL, small_report
from oml_vit_ext.pictures.report import render, write_report


@pytest.fixture(scope="module")
def html() -> str:
    return render(small_report())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(small_report(), tmp_path_factory.mktemp("report") / "new/report.html")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_names_no_address_and_no_other_file(html: str):
    assert not re.search(r"(?:https?:)?//[\w.-]+\.\w", html), "an address"
    parser = _Tags()
    parser.feed(html)
    for tag, attributes in parser.found:
        assert tag not in ("link", "iframe", "object", "base"), tag
        assert not attributes.get("src") and (attributes.get("href") or "#").startswith("#"), attributes


def test_texts_are_only_text(html: str):
    assert HOSTILE not in html and "onerror='" not in html
    parser = _Tags()
    parser.feed(html)
    scripts = [attributes for tag, attributes in parser.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}] and "img" not in dict(parser.found)


def test_each_picture_is_in_the_page_once(html: str):
    assert html.count(PIXEL.partition(",")[2]) == 9


def test_the_file_is_whole(file: Path, html: str):
    assert file.read_text(encoding="utf-8") == html and [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def desktop(chromium: Any, file: Path) -> Watched:
    watched = Watched(chromium)
    watched.page.goto(file.as_uri())
    return watched


def _shown(page: Any) -> tuple[str, str]:
    return page.inner_text("#position"), page.inner_text("#card .query .label")


def test_queries_drawn_at_random_come_as_drawn(chromium: Any, tmp_path: Path):
    report = small_report()
    drawn = replace(report, at_random=True, queries=report.queries[::-1])
    page = Watched(chromium).page
    page.goto(write_report(drawn, tmp_path / "drawn.html").as_uri())
    labels = []
    for _ in drawn.queries:
        labels.append(page.inner_text("#card .query .label"))
        page.click("#next")
    assert labels == [report.images[query.image].label for query in drawn.queries]


def test_clicks_and_keys_go_through_the_queries(desktop: Watched):
    page = desktop.page
    assert _shown(page) == ("1 of 8", "pear"), "the worst: image 3"
    page.click("#next")
    assert _shown(page) == ("2 of 8", "leek")
    page.click("#previous")
    page.click("#previous")
    assert _shown(page)[0] == "8 of 8", "round the end"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert _shown(page)[0] == "2 of 8"
    page.keyboard.press("ArrowLeft")
    assert _shown(page)[0] == "1 of 8"
    page.click("#random")
    assert _shown(page)[0] != "1 of 8", "another one"
    page.click("#overview li:nth-child(5) button")
    assert _shown(page)[0] == "5 of 8"
    assert page.get_attribute("#overview li:nth-child(5) button", "aria-current") == "true"


def test_filters_orders_and_hits(desktop: Watched):
    page = desktop.page
    choices = page.eval_on_selector_all("#filter option", "all => all.map(option => option.textContent)")
    counts = dict(re.fullmatch(r"(.+) \((\d)\)", text).groups() for text in choices)
    assert counts == {
        **{"all": "8", "first hit wrong": "5", "first hit right": "3"},
        **{"improvements": "3", "worsenings": "2", "no change": "3"},
    }
    page.select_option("#filter", "worse")
    assert _shown(page) == ("1 of 2", "pear") and "worsened by 0.80" in page.inner_text("#card .down")
    assert page.locator("#card .stage").count() == 2
    first, second = page.locator("#card .stage").nth(0), page.locator("#card .stage").nth(1)
    assert first.locator(".hit").nth(0).get_attribute("class") == "hit right"
    assert second.locator(".hit").nth(0).get_attribute("class") == "hit"
    assert second.locator(".hit .gone").count() == 1, "a picture that cannot be read"
    page.select_option("#filter", "better")
    page.select_option("#order", "change")
    assert "improved by 0.90" in page.inner_text("#card .up")
    page.fill("#label", "PEAR")
    assert _shown(page) == ("1 of 1", "pear")
    page.keyboard.press("ArrowLeft")
    assert _shown(page) == ("1 of 1", "pear"), "arrows in a text field are the text's"
    page.fill("#label", "nothing")
    assert "No query fits" in page.inner_text("#card")
    page.fill("#label", "")
    page.select_option("#filter", "all")


def test_names_that_look_like_html_do_nothing(desktop: Watched):
    assert HOSTILE in desktop.page.inner_text("#card .hit .name >> nth=0")
    assert desktop.page.evaluate("window.hurt") is None
    assert desktop.errors == []


def test_nothing_is_asked_of_the_network(desktop: Watched):
    assert desktop.foreign == [] and len([url for url in desktop.requests if url.startswith("file:")]) == 1


def test_the_focus_is_seen(desktop: Watched):
    page = desktop.page
    page.focus("#next")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "random"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_on_a_phone_in_the_dark(chromium: Any, file: Path):
    phone = Watched(chromium, viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.page.goto(file.as_uri())
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out"
    background = phone.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background))) < 60
    assert phone.page.locator("#next").bounding_box()["height"] >= 44, "for a thumb"


def test_without_a_script_it_says_so(chromium: Any, file: Path):
    plain = Watched(chromium, java_script_enabled=False)
    plain.page.goto(file.as_uri())
    assert plain.page.is_visible("noscript .message") and not plain.page.is_visible("#explorer")
    assert plain.page.locator("svg").count() == 3
