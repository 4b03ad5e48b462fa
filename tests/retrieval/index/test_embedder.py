"""Image files to embeddings: the right row for each, in order, whatever the sizes, the broken ones aside."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as t
from oml.registry.transforms import get_transforms_by_cfg
from PIL import ExifTags, Image
from torch import Tensor, nn
from torchvision.transforms import Compose, ToTensor

from helpers import TINY_PLAIN
from helpers.embedders import make_embedder
from helpers.mean_colour import MeanColour, mean_colour_embedder, paint
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint

COLOURS = [(255, 0, 0), (0, 255, 0), (51, 102, 204), (255, 255, 255), (10, 20, 30)]


@pytest.fixture()
def paths(tmp_path: Path) -> list[Path]:
    """One colour each, of two sizes in turns."""
    return [paint(tmp_path / f"{i}.png", colour, (8 + 4 * (i % 2), 8)) for i, colour in enumerate(COLOURS)]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_image_has_its_row_whatever_the_sizes_and_batches(paths: list[Path], batch_size: int, num_workers: int):
    embedder = mean_colour_embedder(batch_size=batch_size, num_workers=num_workers)
    batches = list(embedder.embed(paths))
    assert [batch.positions for batch in batches] == [
        list(range(5))[start : start + batch_size] for start in range(0, 5, batch_size)
    ]
    np.testing.assert_allclose(np.concatenate([b.embeddings for b in batches]), np.array(COLOURS) / 255, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_all(paths), np.array(COLOURS) / 255, atol=1e-6)


def test_of_an_image_with_a_box_only_the_box_counts(tmp_path: Path):
    image = Image.new("RGB", (20, 10), (255, 0, 0))
    image.paste((0, 0, 255), (4, 2, 12, 7))
    image.save(tmp_path / "x.png")
    found = mean_colour_embedder().embed_all([tmp_path / "x.png"] * 2, [(4, 2, 12, 7), None])
    np.testing.assert_allclose(found, [[0, 0, 1], [0.8, 0, 0.2]], atol=1e-6)


def test_images_that_cannot_be_used_are_listed_and_the_others_keep_their_places(paths: list[Path], tmp_path: Path):
    paths[1].write_text("no image")
    paint(paths[3], (0, 0, 0))
    (batch,) = mean_colour_embedder().embed([*paths, tmp_path / "gone.png"])
    assert batch.positions == [0, 2, 4] and [position for position, _ in batch.broken] == [1, 3, 5]
    np.testing.assert_allclose(batch.embeddings, np.array(COLOURS)[[0, 2, 4]] / 255, atol=1e-6)
    reasons = dict(batch.broken)
    assert reasons[1] == "not an image" and reasons[5] == "missing"
    assert reasons[3] == "its embedding is not finite, or all zeros"
    with pytest.raises(ValueError, match=r"The image '.*1\.png' cannot be used: not an image"):
        mean_colour_embedder().embed_all(paths)


def test_no_images_are_an_empty_matrix():
    assert mean_colour_embedder().embed_all([]).shape == (0, 3)


def test_the_model_is_put_into_evaluation_mode_and_recognised():
    extractor = MeanColour(2.0).train()
    embedder = Embedder(extractor, mean_colour_embedder().transform, device="cpu")
    assert not extractor.training
    assert embedder.fingerprint == Fingerprint.of(extractor, embedder.transform) != mean_colour_embedder().fingerprint


def test_it_is_built_from_a_config_that_it_keeps(paths: list[Path], in_tmp_path: Path):
    trained = make_embedder(3)
    torch.save(trained.extractor.state_dict(), "w.pth")
    extractor = {"name": "irt", "args": {"weights": "w.pth", **TINY_PLAIN}}
    transforms = {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}}
    embedder = Embedder.from_config(extractor, transforms, batch_size=3, device="cpu")
    assert embedder.batch_size == 3 and embedder.config["transforms"] == transforms
    assert embedder.config["extractor"]["args"]["weights"] == str(in_tmp_path / "w.pth")
    np.testing.assert_allclose(embedder.embed_all(paths), trained.embed_all(paths), atol=1e-6)


class _Means(nn.Module):
    """Mean colour of the upper half and of the lower half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upper, lower = x.tensor_split(2, dim=2)
        return torch.cat([upper.mean(dim=(2, 3)), lower.mean(dim=(2, 3))], dim=1)


class _Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[float(x.shape[2]), float(x.shape[3])]]).repeat(len(x), 1)


PLAIN = t.Compose([t.ToTensor()])


SHOWN = np.array([1, 0, 0, 0, 0, 1], dtype=np.float32)  # red above, blue below


def _shown() -> Image.Image:
    image = Image.new("RGB", (16, 24), "red")
    image.paste("blue", (0, 12, 16, 24))
    return image


def _on_its_side(file: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    _shown().transpose(Image.Transpose.ROTATE_270).save(file, exif=exif)


def _with_alpha(file: Path) -> None:
    image = _shown().convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.save(file)


def _palette(file: Path) -> None:
    _shown().quantize(4).save(file)


@pytest.mark.parametrize("save", [_on_its_side, _with_alpha, _palette])
def test_files_are_seen_as_a_viewer_shows_them(tmp_path: Path, save):
    save(tmp_path / "x.png")
    (found,) = Embedder(_Means(), PLAIN, device="cpu").embed_all([tmp_path / "x.png"])
    np.testing.assert_allclose(found, SHOWN, atol=0.02)


def test_grey_of_16_bits_is_as_bright_as_of_8(tmp_path: Path):
    grey = np.linspace(3, 250, 64).reshape(8, 8).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    for name in ("16.png", "16.tif"):
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
    eight, *sixteen = Embedder(_Means(), PLAIN, device="cpu").embed_all(
        [tmp_path / name for name in ("8.png", "16.png", "16.tif")]
    )
    for found in sixteen:
        np.testing.assert_allclose(found, eight, atol=1e-6)


@pytest.mark.parametrize(("size", "word"), [((9_000, 3), "9000 x 3 px"), ((2, 4_000), "2 x 4000 px")])
def test_lines_are_named_and_not_blown_up(tmp_path: Path, size: tuple[int, int], word: str):
    Image.new("RGB", size).save(tmp_path / "line.png")
    (batch,) = make_embedder().embed([tmp_path / "line.png"])
    ((position, reason),) = batch.broken
    assert position == 0 and word in reason and len(batch.embeddings) == 0


def test_boxes_are_of_the_upright_image(tmp_path: Path):
    _on_its_side(tmp_path / "x.png")
    embedder = Embedder(_Means(), PLAIN, device="cpu")
    (found,) = embedder.embed_all([tmp_path / "x.png"], [(0, 12, 16, 24)])
    np.testing.assert_allclose(found, [0, 0, 1, 0, 0, 1], atol=0.02)


@pytest.mark.parametrize(("boxes", "seen"), [("scale_of_image", [60, 90]), ("full", [400, 600])])
def test_query_boxes_keep_the_scale_of_their_image_unless_asked_otherwise(tmp_path: Path, boxes: str, seen: list):
    Image.new("RGB", (1_000, 700)).save(tmp_path / "x.png")
    transform = get_transforms_by_cfg({"name": "norm_resize_dtop", "args": {"im_size": 600, "boxes": boxes}})
    (found,) = Embedder(_Sizes(), transform, device="cpu").embed_all([tmp_path / "x.png"], [(10, 20, 160, 120)])
    assert found.tolist() == seen


class _SlowFirst:
    """The first image takes so long that the other worker reads everything it may meanwhile."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size[0] == 9:
            time.sleep(1.5)
        return image


class _Mean(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) + 0.1


@pytest.fixture()
def few_open_files() -> Iterator[None]:
    """Fewer than two workers' images."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 60, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_images_of_many_sizes_from_workers_need_few_open_files(few_open_files: None, tmp_path: Path) -> None:
    sizes = [9] + [2 + i % 5 for i in range(150)]
    for i, size in enumerate(sizes):
        Image.new("RGB", (size, 3), (i, 0, 0)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "020.png").write_text("no image")
    embedder = Embedder(_Mean(), Compose([_SlowFirst(), ToTensor()]), device="cpu", batch_size=30, num_workers=2)
    batches = list(embedder.embed(sorted(tmp_path.iterdir())))
    red = np.concatenate([batch.embeddings[:, 0] for batch in batches])
    expected = [i / 255 + 0.1 for i in range(len(sizes)) if i != 20]
    np.testing.assert_allclose(red, expected, atol=1e-6)
    assert [position for batch in batches for position, _ in batch.broken] == [20]
