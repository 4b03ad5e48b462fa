"""DToP's transforms: the crop has the group's shape, the test image keeps its own, photos stand upright."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from oml.registry.transforms import get_transforms_by_cfg
from oml.utils.images.images import imread_pillow
from PIL import ExifTags, Image

from oml_vit_ext import transforms
from oml_vit_ext.images.reading import read_image
from oml_vit_ext.transforms.dtop import GroupSizeCrop, get_augs_dtop, get_norm_resize_dtop, random_crop
from oml_vit_ext.transforms.size_groups import GROUP_SIZES, group_of


def _picture(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, up to 255."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 500), (1000, 10), (10, 1000), (7, 5), (1, 1)])
def test_the_training_image_has_the_size_of_its_group(size: tuple[int, int]):
    width, height = GROUP_SIZES[int(group_of(*size, GROUP_SIZES))]
    assert get_augs_dtop()(_picture(*size)).shape == (3, height, width)


def test_crops_have_the_shape_and_share_asked_for_and_lie_everywhere():
    ratio, scale = 512 / 352, (0.4, 0.8)
    boxes = np.array([random_crop((900, 500), ratio, scale) for _ in range(400)])
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 900).all() and (top + height <= 500).all()
    assert np.abs(width / height - ratio).max() < 0.01
    shares = width * height / (500 * ratio * 500)
    assert 0.39 < shares.min() < 0.42 and 0.78 < shares.max() < 0.81
    assert abs(shares.mean() - 0.6) < 0.02, "uniform in area"
    places = left / (900 - width)
    assert places.min() < 0.02 and places.max() > 0.98 and abs(places.mean() - 0.5) < 0.05


def test_the_whole_image_is_taken_where_its_shape_is_the_groups():
    crop = GroupSizeCrop([(40, 30)], (1.0, 1.0))
    assert random_crop((400, 300), 40 / 30, (1.0, 1.0)) == (0, 0, 400, 300)
    pixels = np.asarray(crop(_picture(400, 300)))
    assert pixels[15, 0, 0] < 10 and pixels[15, -1, 0] > 245 and pixels[0, 20, 1] < 10 and pixels[-1, 20, 1] > 245


def test_half_of_the_images_are_flipped_and_values_are_normalised():
    augment = get_augs_dtop([[40, 30]], (1.0, 1.0), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = torch.stack([augment(_picture(400, 300)) for _ in range(60)])
    flipped = images[:, 0, 15, 0] > images[:, 0, 15, -1]
    assert 15 < int(flipped.sum()) < 45
    assert images[:, :2].min() > -1.01 and images[:, :2].max() < 1.01 and images[:, :2].std() > 0.5
    assert torch.equal(images[:, 2], torch.full_like(images[:, 2], -1))


def test_seeds_repeat_the_augmentation():
    torch.manual_seed(5)
    first = get_augs_dtop()(_picture(300, 200))
    torch.manual_seed(5)
    assert torch.equal(get_augs_dtop()(_picture(300, 200)), first)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 500), (256, 512)), ((500, 1000), (512, 256)), ((100, 75), (384, 512)), ((3000, 1), (1, 512))],
)
def test_the_test_image_keeps_its_shape(size: tuple[int, int], expected: tuple[int, int]):
    assert get_norm_resize_dtop(512)(_picture(*size)).shape == (3, *expected)


def _cut(box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    stored = BytesIO()
    _picture(*size).save(stored, format="PNG")
    return read_image(stored.getvalue()).crop(box)


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((800, 600), (100, 100, 300, 200), (64, 128)),  # 512 * 200 / 800
        ((600, 800), (0, 0, 100, 400), (256, 64)),
        ((400, 400), (0, 0, 400, 400), (512, 512)),
        ((1000, 100), (3, 3, 4, 4), (1, 1)),
    ],
)
def test_a_box_keeps_the_scale_of_its_image(size: tuple, box: tuple, expected: tuple):
    longer = 512 * max(box[2] - box[0], box[3] - box[1]) / max(size)
    seen = get_norm_resize_dtop(512)(_cut(box, size)).shape
    assert seen == (3, *expected) and max(seen[1:]) == max(1, round(longer))


def test_a_box_in_full_size_is_an_option():
    cut = _cut((100, 100, 300, 200), (800, 600))
    assert get_norm_resize_dtop(512, boxes="full")(cut).shape == (3, 256, 512)
    with pytest.raises(ValueError, match=r"boxes 'ful': did you mean 'full'\?"):
        get_norm_resize_dtop(512, boxes="ful")


@pytest.mark.parametrize("transform", [get_augs_dtop([[60, 30], [30, 60]], (1, 1)), get_norm_resize_dtop(60)])
@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_photos_stand_upright(transform, suffix: str):
    """Also as OML reads them: decoded, turned to RGB, cropped by their box, and never turned upright."""
    exif, stored = Image.Exif(), BytesIO()
    exif[ExifTags.Base.Orientation] = 6  # a quarter to the right
    _picture(120, 60).save(stored, format=suffix, exif=exif)
    image = imread_pillow(stored.getvalue()).crop((0, 0, 120, 60))
    shown = transform(image)
    assert shown.shape == (3, 60, 30)
    assert shown[0, 5, 15] < shown[0, 55, 15], "red grows downwards now"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"crop_scale": [0.0, 1.0]}, r"crop_scale is \[0.0, 1.0\]"),
        ({"crop_scale": [0.9, 0.5]}, "0 < lowest <= highest <= 1"),
        ({"crop_scale": [0.9, 1.5]}, "0 < lowest <= highest <= 1"),
        ({"crop_scale": [0.9]}, r"crop_scale is \[0.9\], expected two"),
        ({"crop_scale": 0.7}, "crop_scale is 0.7, expected two shares"),
        ({"crop_scale": ["a", "b"]}, r"crop_scale is \['a', 'b'\], expected two shares"),
        ({"sizes": []}, "sizes is empty"),
    ],
)
def test_wrong_arguments_are_named(args: dict, message: str):
    with pytest.raises(ValueError, match=message):
        get_transforms_by_cfg({"name": "augs_dtop", "args": args})


def test_a_wrong_test_size_is_named():
    with pytest.raises(ValueError, match="im_size is 0, expected a whole number of at least 1"):
        get_norm_resize_dtop(0)


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_stop_no_transform():
    stored = BytesIO()
    _picture(120, 60).save(stored, format="JPEG", exif=b"Exif\x00\x00\x00\x08\x00\x02\x01\x12\x00\x03", dpi=(72, 72))
    assert get_norm_resize_dtop(60)(imread_pillow(stored.getvalue())).shape == (3, 30, 60)


def test_the_transforms_are_public():
    assert transforms.get_augs_dtop is get_augs_dtop and transforms.get_norm_resize_dtop is get_norm_resize_dtop
    assert transforms.get_augs_irt()(_picture(90, 60)).shape == (3, 224, 224)
    assert transforms.get_norm_resize_irt()(_picture(90, 60)).shape == (3, 224, 224)
