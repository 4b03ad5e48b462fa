"""Sizes of images from their headers: correct, read once, never in the way of a run."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image, ImageOps

from oml_vit_ext.common import files
from oml_vit_ext.images.sizes import Size, look_at_image, read_image_sizes


def _save(path: Path, width: int, height: int, orientation: int | None = None, mode: str = "RGB") -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height)).save(path, exif=exif)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        _save(tmp_path / f"a{i}.jpg", 10 + i, 20)
    return tmp_path


@pytest.fixture()
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers were read."""
    names: list[str] = []
    open_image = Image.open

    def counted(file: Path):
        names.append(Path(file).name)
        return open_image(file)

    monkeypatch.setattr(Image, "open", counted)
    return names


PATHS = [f"a{i}.jpg" for i in range(5)]


def _read(root: Path, cache: Path | None = None, paths: list[str] = PATHS):
    return read_image_sizes(paths, root, cache=cache, n_threads=2, verbose=False)


def test_sizes_come_in_the_order_of_the_paths(folder: Path):
    sizes = _read(folder, paths=["a3.jpg", "a0.jpg", "a3.jpg", str(folder / "a1.jpg")])
    assert sizes.width.tolist() == [13, 10, 13, 11] and sizes.height.tolist() == [20] * 4


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_upright_sizes_are_those_after_the_exif_orientation(tmp_path: Path, orientation: int, suffix: str):
    _save(tmp_path / f"x.{suffix}", 30, 12, orientation)
    width, height = _read(tmp_path, paths=[f"x.{suffix}"]).upright()
    upright = ImageOps.exif_transpose(Image.open(tmp_path / f"x.{suffix}"))
    assert (int(width[0]), int(height[0])) == upright.size


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGBA"), ("png", "L"), ("gif", "P"), ("bmp", "RGB"), ("jpg", "CMYK")]
)
def test_all_kinds_of_images(tmp_path: Path, suffix: str, mode: str):
    _save(tmp_path / f"x.{suffix}", 9, 4, mode=mode)
    sizes = _read(tmp_path, paths=[f"x.{suffix}"])
    assert (sizes.width[0], sizes.height[0], sizes.turned[0]) == (9, 4, False)


def test_the_second_time_no_image_is_opened(folder: Path, headers_read: list[str]):
    first = _read(folder, folder / "sizes.csv")
    assert sorted(headers_read) == PATHS
    headers_read.clear()
    second = _read(folder, folder / "sizes.csv")
    assert headers_read == []
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_only_new_and_changed_files_are_read_again(folder: Path, headers_read: list[str]):
    cache = folder / "sizes.csv"
    _read(folder, cache)
    _save(folder / "a2.jpg", 77, 33)
    os.utime(folder / "a2.jpg", ns=(1, 1))
    _save(folder / "new.jpg", 5, 6)
    headers_read.clear()
    sizes = _read(folder, cache, [*PATHS, "new.jpg"])
    assert sorted(headers_read) == ["a2.jpg", "new.jpg"]
    assert sizes.width.tolist() == [10, 11, 77, 13, 14, 5]
    assert len(pd.read_csv(cache)) == 6


def test_data_sets_that_share_a_cache_keep_each_others_entries(folder: Path, headers_read: list[str]):
    cache = folder / "sizes.csv"
    _read(folder, cache, PATHS[:2])
    _read(folder, cache, PATHS[2:])
    headers_read.clear()
    _read(folder, cache)
    assert headers_read == []


@pytest.mark.parametrize(
    "content", [b"", b"path,width\na0.jpg,3\n", b"\x00\xff\xfe", b"path,modified_ns,bytes,width\n1,2"]
)
def test_a_broken_cache_is_made_again(folder: Path, content: bytes, caplog: pytest.LogCaptureFixture):
    cache = folder / "sizes.csv"
    cache.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert _read(folder, cache).width.tolist() == [10, 11, 12, 13, 14]
    assert "sizes.csv cannot be used" in caplog.text
    assert len(pd.read_csv(cache)) == 5


def test_a_folder_that_cannot_be_written_costs_a_warning(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        sizes = _read(folder, folder / "a0.jpg" / "sizes.csv")
    assert sizes.width.tolist() == [10, 11, 12, 13, 14]
    assert "cannot be written" in caplog.text and "sizes_cache" in caplog.text


def test_an_interrupted_write_leaves_the_old_cache(folder: Path, monkeypatch: pytest.MonkeyPatch):
    cache = folder / "sizes.csv"
    _read(folder, cache)
    before = cache.read_bytes()
    _save(folder / "a0.jpg", 50, 50)

    def interrupted(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", interrupted)
    assert _read(folder, cache).width[0] == 50
    assert cache.read_bytes() == before
    assert [p.name for p in folder.iterdir() if ".partial" in p.name] == []


def test_broken_and_missing_images_are_named(folder: Path):
    (folder / "a1.jpg").write_text("no image")
    (folder / "a2.jpg").write_bytes((folder / "a3.jpg").read_bytes()[:20])
    (folder / "a4.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"3 images below .* cannot be read: a1.jpg \(not an image\); a2.jpg .*a4.jpg"
    ) as e:
        _read(folder, folder / "sizes.csv")
    assert "Mend these files" in str(e.value)
    assert len(pd.read_csv(folder / "sizes.csv")) == 2, "what could be read is kept"


def test_many_broken_images_are_counted(folder: Path):
    with pytest.raises(ValueError, match=r"40 images .* and 35 more"):
        _read(folder, paths=[f"missing{i}.jpg" for i in range(40)])


def test_names_with_commas_quotes_and_line_breaks_survive_the_cache(folder: Path, headers_read: list[str]):
    names = ['a,"b".jpg', "NA", "é\u4e2d.jpg", "line\nbreak.jpg", "007"]
    for i, name in enumerate(names):
        Image.new("RGB", (3 + i, 2)).save(folder / name, format="JPEG")
    _read(folder, folder / "sizes.csv", names)
    headers_read.clear()
    assert _read(folder, folder / "sizes.csv", names).width.tolist() == [3, 4, 5, 6, 7]
    assert headers_read == []


def test_two_processes_may_write_at_once(folder: Path):
    with ThreadPoolExecutor(4) as threads:  # in one process they even share the temporary name
        results = list(threads.map(lambda _: _read(folder, folder / "sizes.csv").width.tolist(), range(8)))
    assert results == [[10, 11, 12, 13, 14]] * 8


def test_nothing_to_read(tmp_path: Path):
    sizes = _read(tmp_path, tmp_path / "sizes.csv", [])
    assert len(sizes.width) == 0 and not (tmp_path / "sizes.csv").exists()


def test_a_png_with_a_broken_stream_is_found_by_decoding(tmp_path: Path):
    """The search for EXIF data at the end of a PNG decodes it, and swallows what is wrong with it."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    content = bytearray((tmp_path / "x.png").read_bytes())
    at = content.index(b"IDAT") + 100
    content[at] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    assert isinstance(look_at_image(tmp_path / "x.png"), Size)
    assert "OSError" in str(look_at_image(tmp_path / "x.png", decode=True))


@pytest.mark.parametrize("content", ["path,label,split\na0.jpg,0,train\n", "notes"])
def test_a_file_of_somebody_else_is_no_cache(folder: Path, content: str, caplog: pytest.LogCaptureFixture):
    """A wrong name, such as that of the dataframe, must not cost the file."""
    file = folder / "df.csv"
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert _read(folder, file).width.tolist() == [10, 11, 12, 13, 14]
    assert file.read_text() == content and "is no file of sizes and stays as it is" in caplog.text
