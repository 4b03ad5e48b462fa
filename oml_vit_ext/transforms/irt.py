"""The transforms of IRT: resize 256, crop 224, flip (arXiv 2102.05644, section 4.1)."""

from __future__ import annotations

import torchvision.transforms as t
from oml.const import MEAN, STD, TNormParam
from torchvision.transforms import InterpolationMode

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.transforms.upright import Upright


def get_augs_irt(im_size: int = 256, crop_size: int = 224, mean: TNormParam = MEAN, std: TNormParam = STD) -> t.Compose:
    """Training: resize to a square, random crop, random horizontal flip.

    Args:
        im_size: Side of the square in pixels; the aspect ratio is not kept.
        crop_size: Side of the random crop in pixels, at most ``im_size``.
        mean, std: Per channel, for values in [0, 1]. The default is ImageNet's.

    Returns:
        A transform from a picture to ``(3, crop_size, crop_size)``.

    Raises:
        ValueError: ``crop_size`` is not from 1 to ``im_size``.
    """
    _check_crop(im_size, crop_size)
    return t.Compose(
        [
            Upright(),
            t.Resize((im_size, im_size), interpolation=InterpolationMode.BICUBIC),
            t.RandomCrop(crop_size),
            t.RandomHorizontalFlip(),
            t.ToTensor(),
            t.Normalize(mean=mean, std=std),
        ]
    )


def get_norm_resize_irt(
    im_size: int = 256, crop_size: int = 224, mean: TNormParam = MEAN, std: TNormParam = STD
) -> t.Compose:
    """Test: resize the short side, centre crop. Arguments as for training.

    The paper does not state its test crop; this is the public re-implementation's.

    Raises:
        ValueError: As for training.

    >>> from PIL import Image
    >>> get_norm_resize_irt()(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 224, 224])
    """
    _check_crop(im_size, crop_size)
    return t.Compose(
        [
            Upright(),
            t.Resize(im_size, interpolation=InterpolationMode.BICUBIC),
            t.CenterCrop(crop_size),
            t.ToTensor(),
            t.Normalize(mean=mean, std=std),
        ]
    )


def _check_crop(im_size: int, crop_size: int) -> None:
    check_whole("im_size", im_size, 1)
    check_whole("crop_size", crop_size, 1, im_size, why=f"at most im_size={im_size}")
