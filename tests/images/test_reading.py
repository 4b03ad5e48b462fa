"""Image files to pixels: upright, in RGB, whole; or an error that says why."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from oml_vit_ext.images import reading
from oml_vit_ext.images.formats import has_image_extension, reads_heic
from oml_vit_ext.images.reading import MISSING, open_image, read_array, read_image, why_unreadable
from oml_vit_ext.images.sizes import read_image_sizes


def _gradient(width: int = 48, height: int = 32) -> Image.Image:
    """Red grows to the right, green downwards, so that every turn shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x + 40], axis=-1).astype(np.uint8))


def _close(image: Image.Image, expected: Image.Image, tolerance: int = 8) -> bool:
    assert image.mode == "RGB" and image.size == expected.size
    difference = np.asarray(image).astype(int) - np.asarray(expected.convert("RGB"))
    return bool(np.abs(difference).mean() < tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_photos_stand_upright_in_every_format(tmp_path: Path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    _gradient().save(tmp_path / f"x.{suffix}", exif=exif, **({} if suffix == "tif" else {"quality": 95}))
    marked = _gradient()
    marked.getexif()[ExifTags.Base.Orientation] = orientation
    expected = ImageOps.exif_transpose(marked)
    for source in (tmp_path / f"x.{suffix}", str(tmp_path / f"x.{suffix}"), (tmp_path / f"x.{suffix}").read_bytes()):
        image = read_image(source)
        assert _close(image, expected)
        assert ImageOps.exif_transpose(image).size == image.size, "nobody turns it again"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "F", "P", "RGBA", "CMYK"])
def test_tiff_files_of_every_mode_stand_upright(tmp_path: Path, mode: str, orientation: int):
    """Pillow maps uncompressed ones of some modes into memory by the turned size: stripes."""
    of_grey = {"I;16": np.uint16(257), "F": np.float32(1)}
    grey = np.asarray(_gradient().convert("L"))
    stored = Image.fromarray(grey * of_grey[mode]) if mode in of_grey else _gradient().convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "as_it_is.tif")
    stored.save(tmp_path / "x.tif", exif=exif)
    marked = read_image(tmp_path / "as_it_is.tif")
    marked.getexif()[ExifTags.Base.Orientation] = orientation
    expected = ImageOps.exif_transpose(marked)
    assert _close(read_image(tmp_path / "x.tif"), expected, tolerance=1)
    width, height = read_image_sizes(["x.tif"], tmp_path, verbose=False).upright()
    assert (width[0], height[0]) == expected.size


NEEDS_AVIF = pytest.mark.skipif(not has_image_extension("x.avif"), reason="this Pillow does not read AVIF")
NEEDS_HEIC = pytest.mark.skipif(not reads_heic(), reason="pillow-heif is not installed")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [pytest.param("avif", marks=NEEDS_AVIF), pytest.param("heic", marks=NEEDS_HEIC)])
def test_avif_and_heic_stand_upright(tmp_path: Path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    large = _gradient().resize((96, 64))
    if suffix == "heic":
        _save_heic(large, tmp_path / "x.heic", exif)
    else:
        large.save(tmp_path / f"x.{suffix}", exif=exif, quality=90)
    large.getexif()[ExifTags.Base.Orientation] = orientation
    expected = ImageOps.exif_transpose(large)
    assert _close(read_image((tmp_path / f"x.{suffix}").read_bytes()), expected)
    width, height = read_image_sizes([f"x.{suffix}"], tmp_path, verbose=False).upright()
    assert (width[0], height[0]) == expected.size


def _save_heic(image: Image.Image, file: Path, exif: Image.Exif) -> None:
    """As phones do: the turn stands in the file's own header, too."""
    heic = pytest.importorskip("pillow_heif").from_pillow(image)
    heic.info["exif"] = exif.tobytes()
    heic.save(file)


@NEEDS_HEIC
def test_heic_needs_no_call_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _save_heic(_gradient().resize((96, 64)), tmp_path / "IMG_1.HEIC", Image.Exif())
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    assert read_image(tmp_path / "IMG_1.HEIC").size == (96, 64)


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00\x00\x08\x00\x02\x01\x12\x00\x03", b"Exif\x00\x00II*\x00", b"\xff" * 40]
)
@pytest.mark.parametrize("args", [{}, {"dpi": (72, 72)}])
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_are_ignored(tmp_path: Path, exif: bytes, args: dict):
    _gradient().save(tmp_path / "x.jpg", exif=exif, quality=95, **args)
    assert _close(read_image(tmp_path / "x.jpg"), _gradient())


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, suffix: str):
    grey = np.asarray(_gradient().convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"x.{suffix}")
    assert np.array_equal(np.asarray(read_image(tmp_path / f"x.{suffix}"))[..., 1], grey)
    Image.fromarray(np.full((4, 4), 256, dtype=np.uint16)).save(tmp_path / f"x.{suffix}")
    assert np.asarray(read_image(tmp_path / f"x.{suffix}")).max() == 1, "a dark picture stays dark"


@pytest.mark.parametrize(("photometric", "expected"), [(0, [255, 204, 0]), (1, [0, 51, 255])])
def test_scans_of_16_bits_that_count_from_white(photometric: int, expected: list[int]):
    values = (np.array([0, 51, 255], dtype="<u2") * 257).tobytes()
    tags = {256: 3, 257: 1, 258: 16, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(values)}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(values)) + values
    image = read_image(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert np.asarray(image)[0, :, 0].tolist() == expected


def test_a_transparent_grey_of_16_bits_is_white():
    stream = BytesIO()
    Image.fromarray(np.array([[0, 257 * 51, 65_535]], dtype=np.uint16)).save(stream, "PNG")
    content = stream.getvalue()
    at = content.index(b"IDAT") - 4
    keyed = content[:at] + _chunk(b"tRNS", struct.pack(">H", 257 * 51)) + content[at:]
    assert np.asarray(read_image(keyed))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 51, 255]], dtype=np.int32), [0, 51, 255]),
        (np.array([[0, 257 * 51, 65_535]], dtype=np.int32), [0, 51, 255]),
        (np.array([[0, 200_000, 1_000_000]], dtype=np.int32), [0, 51, 255]),
        (np.array([[-100, 0, 400]], dtype=np.int32), [0, 0, 2]),
        (np.array([[0.0, 0.2, 1.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.0, 255.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, 200.0, 1000.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[np.nan, np.inf, 1.0]], dtype=np.float32), [0, 0, 255]),
        (np.zeros((1, 3), dtype=np.float32), [0, 0, 0]),
    ],
)
def test_grey_of_32_bits_is_scaled_by_its_values(tmp_path: Path, values: np.ndarray, expected: list[int]):
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert np.asarray(read_image(tmp_path / "x.tif"))[0, :, 0].tolist() == expected


def test_transparent_parts_are_white(tmp_path: Path):
    half = _gradient().convert("RGBA")
    half.paste((0, 0, 0, 0), (0, 0, 24, 32))
    half.save(tmp_path / "rgba.png")
    half.convert("LA").save(tmp_path / "la.png")
    half.quantize(64).save(tmp_path / "palette.png")
    half.save(tmp_path / "x.webp", lossless=True)
    black_is_clear = _gradient().convert("L").point(lambda v: max(v, 1))
    black_is_clear.paste(0, (0, 0, 24, 32))
    black_is_clear.save(tmp_path / "key.png", transparency=0)
    for file in tmp_path.iterdir():
        pixels = np.asarray(read_image(file))
        assert (pixels[:, :24] == 255).all(), file.name
        assert pixels[:, 26:, 1].std() > 20, file.name


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("P", "png"), ("P", "gif"), ("YCbCr", "jpg")]
)
def test_other_colours_become_rgb(tmp_path: Path, mode: str, suffix: str):
    _gradient().convert(mode).save(tmp_path / f"x.{suffix}")
    assert _close(read_image(tmp_path / f"x.{suffix}"), _gradient(), tolerance=25)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_rgb(tmp_path: Path, mode: str):
    _gradient().convert(mode).save(tmp_path / "x.png")
    assert _close(read_image(tmp_path / "x.png"), _gradient().convert(mode).convert("RGB"), tolerance=1)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_animated_files_it_is_the_first_frame(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    assert _close(read_image(tmp_path / f"x.{suffix}"), frames[0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif"])
def test_half_an_image_is_none(tmp_path: Path, suffix: str):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / f"x.{suffix}")
    content = (tmp_path / f"x.{suffix}").read_bytes()
    (tmp_path / f"x.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception) as caught:
        read_image(tmp_path / f"x.{suffix}")
    assert why_unreadable(caught.value) not in (MISSING, "")


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_header(width: int, height: int) -> bytes:
    """A PNG file that announces a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"\0")), _chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts])


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_bombs_are_refused_before_they_are_decoded(limit: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # other libraries switch Pillow's own check off
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        read_image(_png_header(30_000, 30_000))


def test_lines_are_refused_and_panoramas_are_not(tmp_path: Path):
    with pytest.raises(ValueError, match=r"the size is 12000 x 2 px, expected one side at most 200 times the other"):
        open_image(_png_header(12_000, 2))
    Image.new("RGB", (4_000, 200)).save(tmp_path / "panorama.png")
    assert read_image(tmp_path / "panorama.png").size == (4_000, 200)


def test_files_are_closed(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    _gradient().save(tmp_path / "x.png")
    (tmp_path / "bomb.png").write_bytes(_png_header(12_000, 2))
    read_image(tmp_path / "x.png")
    with pytest.raises(ValueError, match="12000 x 2"):
        read_image(tmp_path / "bomb.png")
    for file in tmp_path.iterdir():
        file.unlink()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_reasons(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    for name, reason in (("nowhere.jpg", MISSING), ("text.jpg", "not an image")):
        with pytest.raises(OSError) as caught:
            read_image(tmp_path / name)
        assert why_unreadable(caught.value) == reason


def test_long_notes_in_a_png_do_not_cost_the_picture(tmp_path: Path):
    """Generators of images write megabytes of text into them, which Pillow refuses to unpack."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "x" * 2_000_000, zip=True)
    notes.add_itxt("prompt", "y" * 2_000_000, zip=True)
    _gradient().save(tmp_path / "x.png", pnginfo=notes)
    for source in (tmp_path / "x.png", (tmp_path / "x.png").read_bytes()):
        assert _close(read_image(source), _gradient(), tolerance=1)


def test_no_other_program_is_started_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow has EPS drawn by Ghostscript, whatever the file's name says."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("was started"))
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "x.jpg").write_bytes(head)
    for source in (tmp_path / "x.jpg", head):
        with pytest.raises(OSError) as caught:
            read_image(source)
        assert why_unreadable(caught.value) == "not an image"


def test_the_limit_of_pixels_is_that_of_pillow():
    assert reading.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    stream = BytesIO()
    _gradient().save(stream, format="PNG")
    assert read_image(stream.getvalue()).size == (48, 32)


@pytest.mark.parametrize("error", [SyntaxError, RuntimeError, KeyError, struct.error, IndexError])
def test_whatever_a_decoder_raises_is_an_os_error(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    """Pillow's decoders of PNG and AVIF raise SyntaxError and RuntimeError on damaged files, others more."""
    content = BytesIO()
    Image.new("RGB", (3, 2)).save(content, "PNG")

    def broken(*_: object, **__: object) -> None:
        raise error("broken PNG file")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", broken)
    with pytest.raises(OSError, match=rf"the file is damaged \({error.__name__}: .*broken PNG file"):
        read_image(content.getvalue())


def test_a_size_that_only_the_decoder_sees_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Pillow's error of decompression bombs is neither an OSError nor a ValueError."""

    def bomb(*_: object, **__: object) -> None:
        raise Image.DecompressionBombError("Image size (137439739905 pixels) exceeds limit.")

    monkeypatch.setattr(Image, "open", bomb)
    with pytest.raises(ValueError, match=r"137439739905 pixels\) exceeds limit"):
        read_image(b"anything")


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "LA"])
def test_a_large_picture_is_scaled_in_parts_that_do_not_show(mode: str, monkeypatch: pytest.MonkeyPatch):
    """A small file may hold 179 million pixels: in float64 they would be gigabytes."""
    numbers = np.random.default_rng(0)
    shape = (50, 30, *([4] if mode == "RGBA" else [2] if mode == "LA" else []))
    if mode in ("I;16", "F"):
        values = numbers.integers(0, 65_536, shape)
        picture = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.float32))
    else:
        picture = Image.fromarray(numbers.integers(0, 256, shape).astype(np.uint8), mode)
    content = BytesIO()
    picture.save(content, "TIFF" if mode == "F" else "PNG")
    as_a_whole = read_array(content.getvalue())
    monkeypatch.setattr(reading, "_AT_ONCE", 100)
    np.testing.assert_array_equal(read_array(content.getvalue()), as_a_whole)


def test_grey_of_16_bits_takes_no_more_memory_than_colours():
    content = BytesIO()
    Image.fromarray(np.zeros((3_000, 3_000), np.uint16)).save(content, "PNG")
    tracemalloc.start()
    try:
        read_image(content.getvalue())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 9_000_000 * 8, "numpy's own part: in float64 it was 72 MB for each of three arrays"
