"""Image files with random damage: a whole picture, or an error that the reader promises."""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers.fuzzing import fuzz
from oml_vit_ext.images.reading import read_image, why_unreadable
from oml_vit_ext.images.sizes import Size, look_at_image

KINDS = [
    *[("PNG", mode) for mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")],
    *[("JPEG", mode) for mode in ("L", "RGB", "CMYK")],
    *[("WEBP", mode) for mode in ("RGB", "RGBA")],
    *[("TIFF", mode) for mode in ("1", "L", "I;16", "F", "RGB", "CMYK")],
    *[("GIF", mode) for mode in ("L", "P")],
    *[("BMP", mode) for mode in ("L", "RGB")],
    ("AVIF", "RGB"),
]


@cache
def whole(kind: tuple[str, str], orientation: int) -> bytes:
    """A small picture in a file, with an EXIF orientation where the format has one."""
    name, mode = kind
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.arange(45, dtype=np.uint16).reshape(5, 9) * 1000)
    else:
        picture = picture.convert("L").convert(mode) if mode == "LA" else picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a small picture"
    buffer = io.BytesIO()
    picture.save(buffer, name, **({} if name in ("GIF", "BMP") else {"exif": exif}))
    return buffer.getvalue()


def picture_or_promised_error(content: bytes) -> Image.Image | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(content)
        except (OSError, ValueError) as error:
            assert why_unreadable(error)
            return None
    assert picture.mode == "RGB" and min(picture.size) > 0 and np.array(picture).shape == (*picture.size[::-1], 3)
    return picture


@fuzz(short=40, long=400)
@given(st.sampled_from(KINDS), st.integers(1, 8))
def test_whole_files_are_upright(kind: tuple[str, str], orientation: int):
    content = whole(kind, orientation)
    picture = picture_or_promised_error(content)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert picture is not None and theirs is not None and picture.size == theirs.size
    if kind[1] in ("RGB", "L", "P", "1") and kind[0] != "GIF":
        np.testing.assert_array_equal(np.array(picture), np.array(theirs.convert("RGB")))


@st.composite
def damaged(draw: Any) -> bytes:
    content = bytearray(whole(draw(st.sampled_from(KINDS)), draw(st.integers(0, 9))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                del content[place:]
            case 1:
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 2:
                content[place:place] = draw(st.binary(min_size=1, max_size=8))
            case 3:
                del content[place : place + draw(st.integers(1, 8))]
            case _:
                content[place : place + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
                )
    return bytes(content)


@fuzz(short=150, long=6_000)
@given(damaged())
def test_damaged_files(tmp_path_factory: Any, content: bytes):
    picture = picture_or_promised_error(content)
    file = Path(tmp_path_factory.getbasetemp()) / "damaged"
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        looked = look_at_image(file, decode=True)
    assert isinstance(looked, (Size, str))
    if picture is not None:
        assert isinstance(looked, Size)


@fuzz(short=30, long=1_000)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda a, b: a + b,
            st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF89a", b"RIFF", b"BM"]),
            st.binary(max_size=40),
        ),
    )
)
def test_bytes_that_are_no_image(content: bytes):
    picture_or_promised_error(content)
