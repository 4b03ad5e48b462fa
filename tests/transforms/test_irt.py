"""The transforms of IRT on real pictures of other sizes and shapes."""

import numpy as np
import pytest
import torch
from oml.registry.transforms import get_transforms_by_cfg
from oml.transforms.images.utils import get_im_reader_for_transforms
from oml.utils.images.images import imread_pillow
from PIL import Image

from oml_vit_ext.transforms.irt import get_augs_irt, get_norm_resize_irt


def _picture(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(300, 500), (100, 80), (256, 256)])
@pytest.mark.parametrize("name", ["augs_irt", "norm_resize_irt"])
def test_any_picture_becomes_224(name: str, size: tuple[int, int]):
    transforms = get_transforms_by_cfg({"name": name, "args": {}})
    assert transforms(_picture(*size)).shape == (3, 224, 224)
    assert get_im_reader_for_transforms(transforms) is imread_pillow


def test_training_squeezes_to_a_square_testing_keeps_the_aspect_ratio():
    """A wide picture: all of its width is seen in training (but for the crop), only the middle in testing."""
    wide = _picture(1000, 250)
    spans = {}
    for transforms in (get_augs_irt(256, 256), get_norm_resize_irt(256, 256)):
        red = transforms(wide)[0] * 0.229 + 0.485
        spans[len(spans)] = (red.max() - red.min()).item()
    assert spans[0] > 0.98 and 0.2 < spans[1] < 0.3


def test_training_crops_and_flips_at_random():
    torch.manual_seed(0)
    transforms = get_augs_irt()
    seen = torch.stack([transforms(_picture(300, 300)) for _ in range(16)])
    flipped = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    assert 0 < flipped.sum() < 16
    assert len(seen[:, 1, 0, 0].unique()) > 4  # green at the top edge tells the crop's position


def test_testing_is_deterministic_and_normalised():
    transforms = get_norm_resize_irt()
    picture = _picture(300, 300)
    torch.testing.assert_close(transforms(picture), transforms(picture))
    blue = transforms(picture)[2]
    torch.testing.assert_close(blue, torch.full_like(blue, (128 / 255 - 0.406) / 0.225), atol=0.02, rtol=0)


@pytest.mark.parametrize("build", [get_augs_irt, get_norm_resize_irt])
def test_a_crop_larger_than_the_image_is_refused(build):
    with pytest.raises(ValueError, match=r"crop_size is 384, expected a whole number from 1 to 256 \(.*im_size=256\)"):
        build(im_size=256, crop_size=384)
