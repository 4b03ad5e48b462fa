"""Data sets one folder deeper, with other endings, or with a part of their archives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers import miniature
from oml_vit_ext.datasets import convert
from oml_vit_ext.datasets.whereabouts import find_root, found_elsewhere

NAMES = ["sop", "cub", "cars", "sfm120k"]


def _rows(name: str, root: Path, **options) -> list[tuple]:
    df = convert(name, root, check=False, verbose=False, output=root / "out.csv", **options)
    return [tuple(row) for row in df[["label", "split"]].itertuples(index=False)]


@pytest.fixture(params=NAMES)
def in_place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, list[tuple]]:
    root = tmp_path / "data"
    getattr(miniature, request.param)(root)
    return request.param, root, _rows(request.param, root)


@pytest.mark.filterwarnings("ignore")
def test_the_folder_above_will_do(in_place, tmp_path: Path):
    name, root, expected = in_place
    (tmp_path / "above").mkdir()
    shutil.move(root, tmp_path / "above/CUB_200_2011")
    assert _rows(name, tmp_path / "above") == expected


@pytest.mark.parametrize("where", ["twice", "in a folder"])
@pytest.mark.filterwarnings("ignore")
def test_images_may_lie_one_folder_deeper(in_place, where: str):
    name, root, expected = in_place
    for folder in [inner for inner in root.iterdir() if inner.is_dir() and any(inner.rglob("*"))]:
        inner = root / (f"{folder.name}/{folder.name}" if where == "twice" else f"archive/{folder.name}")
        shutil.move(folder, root / "moving")
        inner.parent.mkdir(exist_ok=True)
        shutil.move(root / "moving", inner)
    assert _rows(name, root) == expected
    df = pd.read_csv(root / "out.csv")
    assert all((root / path).is_file() for path in df.path)


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".jpeg", ".Jpg"])
@pytest.mark.filterwarnings("ignore")
def test_the_spelling_of_the_ending_does_not_matter(in_place, ending: str):
    name, root, expected = in_place
    images = [f for f in root.rglob("*") if f.is_file() and f.suffix.lower() in (".jpg", "") and f.parent != root]
    for file in images:
        file.rename(file.with_suffix(ending))
    assert _rows(name, root) == expected
    if name == "sfm120k":
        pairs = pd.read_csv(root / "out.pairs.csv")
        assert len(pairs) == 4 and all((root / path).is_file() for path in pairs.anchor)


def test_where_the_data_set_lies_is_told(tmp_path: Path):
    miniature.cub(tmp_path / "CUB_200_2011")
    with pytest.warns(UserWarning, match=r"cub lies in .*CUB_200_2011: that is its dataset_root"):
        convert("cub", tmp_path, check=False, verbose=False)
    assert (tmp_path / "CUB_200_2011/df.csv").is_file()


@pytest.mark.parametrize("unpacked", ["f", "0"])
@pytest.mark.parametrize("folder", ["train", "images"])
def test_some_archives_of_gldv2(tmp_path: Path, unpacked: str, folder: str):
    miniature.gldv2(tmp_path)
    (tmp_path / "train").rename(tmp_path / folder) if folder != "train" else None
    for inner in (tmp_path / folder).iterdir():
        if inner.name != unpacked:
            shutil.rmtree(inner)
    with pytest.warns(UserWarning, match=r"images? (is|are) left out: missing \("):
        df = convert("gldv2_clean", tmp_path, check=False, verbose=False)
    assert df.path.tolist() == [
        f"{folder}/{path}"
        for path in ("0/a/1/0a1b2c.jpg", "0/a/1/0a1b3d.jpg", "f/f/e/ffee00.jpg")
        if path[0] == unpacked
    ]


@pytest.mark.parametrize("layout", ["images_{0}", "train/images_{0}", "train_images", "archive/train"])
def test_archives_of_gldv2_in_folders_of_their_own(tmp_path: Path, layout: str):
    miniature.gldv2(tmp_path / "data")
    expected = convert("gldv2_clean", tmp_path / "data", check=False, verbose=False)
    (tmp_path / "data/train").rename(tmp_path / "unpacked")
    for first in (tmp_path / "unpacked").iterdir():
        shutil.copytree(first, tmp_path / "data" / layout.format(first.name) / first.name)
    df = convert("gldv2_clean", tmp_path / "data", check=False, verbose=False)
    assert df.label.tolist() == expected.label.tolist() and len(df) == 3
    assert all((tmp_path / "data" / path).is_file() for path in df.path)
    assert [Path(path).name for path in df.path] == [Path(path).name for path in expected.path]


def test_a_photo_of_another_folder_is_not_taken(tmp_path: Path):
    """Short paths do not tell images apart, and where the listed folder is, the others hold something else."""
    for name in ("cars_test/1.jpg", "img/MEN/Denim/id_1/1.jpg", "img_highres/MEN/Denim/id_1/2.jpg"):
        miniature.image(tmp_path / name)
    assert found_elsewhere(tmp_path, ["cars_train/1.jpg", "img_highres/MEN/Denim/id_1/1.jpg"]) == {}
    miniature.image(tmp_path / "photos/4.JPG")
    assert found_elsewhere(tmp_path, ["4.jpg", "1.jpg"]) == {"4.jpg": "photos/4.JPG", "1.jpg": "cars_test/1.jpg"}


def test_what_is_nowhere_is_not_found(tmp_path: Path):
    miniature.image(tmp_path / "x/images/a.jpg")
    missing = ["images/a.jpg", "images/b.jpg", "gone/c.png"]
    assert found_elsewhere(tmp_path, missing) == {"images/a.jpg": "x/images/a.jpg"}
    assert found_elsewhere(tmp_path, []) == {} and find_root(tmp_path, "list.txt") == tmp_path
