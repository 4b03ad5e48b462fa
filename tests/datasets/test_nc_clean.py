"""NC-clean as it was published (links, labels, boxes) and as it is passed on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from helpers import miniature
from oml_vit_ext.datasets import convert

LINES = [
    ("http://a.org/photos/Arsenal-navy.jpg", "424", (1, 9, 2, 7)),
    ("http://b.org/x/mali.JPG", "408", (0, 12, 0, 8)),
    ("http://c.org/%D0%97%D0%B0.jpg", "424", (2, 5, 1, 4)),
    ("http://d.org/show.jpg?id=7", "408", (3, 12, 3, 8)),
]


def _md5(url: str) -> str:
    return hashlib.md5(url.encode()).hexdigest()


def _last(url: str) -> str:
    return url.rpartition("/")[2]


KINDS = {
    "base name": _last,
    "decoded": lambda url: unquote(_last(url)),
    "no query": lambda url: _last(url).partition("?")[0],
    "as wget names it for Windows": lambda url: _last(url).replace("?", "@"),
    "with the usual ending": lambda url: f"{unquote(_last(url)).partition('?')[0].rpartition('.')[0]}.jpg",
    "md5": lambda url: f"{_md5(url)}.jpg",
    "md5 and ending": lambda url: _md5(url) + os.path.splitext(_last(url).partition("?")[0])[1],
    "md5 alone": _md5,
}


def _published(root: Path, lines=LINES, folder: str = "annotations") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for part, some in (("train", lines[:3]), ("val", lines[3:])):
        text = "".join(f"{url} {label} {' '.join(map(str, box))}\n" for url, label, box in some)
        (root / folder / f"annotation_clean_{part}.txt").write_text(text)


def _converted(root: Path, **options) -> pd.DataFrame:
    convert("nc_clean", root, verbose=False, output=root / "out.csv", **options)
    return pd.read_csv(root / "out.csv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", ["annotations", "."])
def test_photos_are_known_by_their_urls(tmp_path: Path, kind: str, folder: str):
    _published(tmp_path, folder=folder)
    for url, _, _ in LINES:
        miniature.image(tmp_path / "photos" / KINDS[kind](url))
    df = _converted(tmp_path)
    assert [Path(path).name for path in df.path] == [KINDS[kind](url) for url, _, _ in LINES]
    assert df.label_name.tolist() == [424, 408, 424, 408] and df.label.tolist() == [1, 0, 1, 0]
    assert set(df.split) == {"train"} and "x_1" not in df


def test_boxes_are_an_option(tmp_path: Path):
    _published(tmp_path)
    for url, _, _ in LINES:
        miniature.image(tmp_path / f"{_md5(url)}.jpg")
    df = _converted(tmp_path, boxes=True)
    assert df[["x_1", "x_2", "y_1", "y_2"]].to_numpy().tolist() == [list(box) for _, _, box in LINES]


def test_photos_that_are_gone_are_counted_and_named(tmp_path: Path):
    _published(tmp_path)
    miniature.image(tmp_path / "mali.JPG")
    with pytest.warns(UserWarning, match=r"3 of 4 photos are not there: http://a.org/photos/Arsenal-navy.jpg; "):
        assert _converted(tmp_path).path.tolist() == ["mali.JPG"]


def test_one_name_for_two_photos_leaves_a_doubt_unless_folders_tell(tmp_path: Path):
    twins = [("http://a.org/1.jpg", "5", (0, 5, 0, 5)), ("http://b.org/1.jpg", "6", (0, 5, 0, 5)), *LINES[1:2]]
    _published(tmp_path, twins)
    miniature.image(tmp_path / "mali.JPG")
    miniature.image(tmp_path / "1.jpg")
    with pytest.warns(UserWarning, match=r"2 photos are left out, because several have the same name: http://a.org/1"):
        assert _converted(tmp_path).path.tolist() == ["mali.JPG"]
    (tmp_path / "1.jpg").unlink()
    for label in ("5", "6"):
        miniature.image(tmp_path / label / "1.jpg")
    assert _converted(tmp_path).path.tolist() == ["5/1.jpg", "6/1.jpg", "mali.JPG"]
    for label, host in (("5", "a.org"), ("6", "b.org")):  # as wget -x has it
        (tmp_path / label).rename(tmp_path / host)
    assert _converted(tmp_path).path.tolist() == ["a.org/1.jpg", "b.org/1.jpg", "mali.JPG"]


def test_no_photo_that_can_be_told_from_the_others(tmp_path: Path):
    _published(tmp_path, [("http://a.org/1.jpg", "5", (0, 5, 0, 5)), ("http://b.org/1.jpg", "6", (0, 5, 0, 5))])
    miniature.image(tmp_path / "1.jpg")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="lists no photo that can be told from the others"):
        _converted(tmp_path)


def test_bad_lists_are_named(tmp_path: Path):
    _published(tmp_path)
    with pytest.raises(ValueError, match=r"no photo of the 4 that .*annotation_clean_train.txt lists"):
        _converted(tmp_path)
    (tmp_path / "annotations/annotation_clean_train.txt").write_text("oneword\n")
    with pytest.raises(ValueError, match="has the line 'oneword', expected a URL, a label and a box"):
        _converted(tmp_path)
    for box in ("1.0 9.0 2.0 7.0", "1 9 2"):
        (tmp_path / "annotations/annotation_clean_train.txt").write_text(f"http://a.org/1.jpg 5 {box}\n")
        with pytest.raises(ValueError, match="expected a URL, a label and a box"):
            _converted(tmp_path)


def test_boxes_need_a_published_list(tmp_path: Path):
    miniature.nc_clean(tmp_path)
    with pytest.raises(ValueError, match="boxes is True, but"):
        _converted(tmp_path, boxes=True)


@pytest.mark.skipif("OML_VIT_EXT_DATA" not in os.environ, reason="OML_VIT_EXT_DATA names no folder with nc_clean")
def test_the_first_lines_of_the_real_lists(tmp_path: Path):
    source = Path(os.environ["OML_VIT_EXT_DATA"]) / "data/nc_clean"
    (tmp_path / "annotations").mkdir()
    urls = []
    for part in ("train", "val"):
        text = (source / f"annotation_clean_{part}.head.txt").read_text()
        (tmp_path / f"annotations/annotation_clean_{part}.txt").write_text(text)
        urls += [line.split()[0] for line in text.splitlines()]
    for url in urls:
        miniature.image(tmp_path / "jpg" / f"{_md5(url)}.jpg", size=(2_000, 2_000))
    df = _converted(tmp_path, boxes=True)
    assert [Path(path).stem for path in df.path] == [_md5(url) for url in urls]
    assert (df.x_1 < df.x_2).all() and (df.y_1 < df.y_2).all()
