"""The transforms of DToP: every image to its group's size for training, any shape for test (arXiv 2210.11909)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision.transforms as t
from oml.const import MEAN, STD, TNormParam
from PIL import Image
from torch import nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.images.reading import FULL_SIZE
from oml_vit_ext.transforms.size_groups import GROUP_SIZES, checked_sizes, group_of
from oml_vit_ext.transforms.upright import Upright

_BOXES = ("scale_of_image", "full")


def get_augs_dtop(
    sizes: Sequence[Sequence[int]] = GROUP_SIZES,
    crop_scale: Sequence[float] = (0.7, 1.0),
    mean: TNormParam = MEAN,
    std: TNormParam = STD,
) -> t.Compose:
    """Training: a random crop of the shape of the image's group, resized to the group's size, and a random flip.

    The group comes from the image's own aspect ratio, by the function that the sampler ``group_size`` uses: with the
    same ``sizes`` in both, each of its batches has one size. Another sampler needs a single size.

    Args:
        sizes: Width and height of each group in pixels.
        crop_scale: Area of the crop as a share of the largest one of that shape, lowest and highest. The paper does not
            give it; 0.7 is our choice.
        mean, std: Per channel, for values in [0, 1]. The default is ImageNet's.

    Returns:
        A transform from a picture to ``(3, height, width)`` of its group.

    Raises:
        ValueError: ``sizes`` or ``crop_scale`` are not as above.
    """
    return t.Compose(
        [Upright(), GroupSizeCrop(sizes, crop_scale), t.RandomHorizontalFlip(), t.ToTensor(), t.Normalize(mean, std)]
    )


def get_norm_resize_dtop(
    im_size: int = 512, mean: TNormParam = MEAN, std: TNormParam = STD, boxes: str = "scale_of_image"
) -> t.Compose:
    """Test: the longer side of the image to ``im_size`` pixels, the aspect ratio kept.

    Images of different shapes cannot be in one batch: validate and predict with batches of one (``bs_val: 1``, ``bs:
    1``), or of more where all images have the same shape.

    Args:
        im_size: Longer side in pixels. The paper does not give it; 512 is our choice.
        mean, std: As for training.
        boxes: What becomes of an image that is cut to its box. ``scale_of_image``: it keeps the scale of its image, so
            its longer side has ``im_size * longer side of the box / longer side of the image`` pixels, as in the
            reference code of Revisited Oxford and Paris. ``full``: its longer side has ``im_size`` pixels.

    Returns:
        A transform from a picture to ``(3, height, width)``.

    Raises:
        ValueError: ``im_size`` is not a whole number of at least 1, or ``boxes`` is not one of the two.

    >>> get_norm_resize_dtop(512)(Image.new("RGB", (1000, 500))).shape
    torch.Size([3, 256, 512])
    """
    return t.Compose([Upright(), LongerSide(im_size, boxes), t.ToTensor(), t.Normalize(mean, std)])


def random_crop(size: tuple[int, int], ratio: float, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """A random box ``(left, top, width, height)`` in pixels inside an image of ``size`` (width, height).

    Its shape is ``ratio`` = width / height up to whole pixels; its area, as a share of the largest box of that shape in
    the image, is uniform in ``scale``; its place is uniform. Random numbers are torch's.

    >>> random_crop((900, 500), ratio=1.5, scale=(1.0, 1.0))[2:]
    (750, 500)
    """
    area, x, y = torch.rand(3).tolist()
    side = (scale[0] + area * (scale[1] - scale[0])) ** 0.5
    largest = min(size[0], size[1] * ratio)
    width = min(size[0], max(1, round(largest * side)))
    height = min(size[1], max(1, round(largest * side / ratio)))
    return round(x * (size[0] - width)), round(y * (size[1] - height)), width, height


def _checked_scale(crop_scale: Sequence[float]) -> tuple[float, float]:
    try:
        lowest, highest = crop_scale
        in_order = 0 < lowest <= highest <= 1
    except (TypeError, ValueError):  # not two, or no numbers
        in_order = False
    if not in_order:
        raise ValueError(f"crop_scale is {crop_scale!r:.80}, expected two shares with 0 < lowest <= highest <= 1.")
    return float(lowest), float(highest)


class GroupSizeCrop(nn.Module):
    """A random crop of the shape of the image's group, resized to the size of that group."""

    def __init__(self, sizes: Sequence[Sequence[int]], crop_scale: Sequence[float]) -> None:
        super().__init__()
        self.sizes = checked_sizes(sizes)
        self.crop_scale = _checked_scale(crop_scale)

    def forward(self, image: Image.Image) -> Image.Image:
        width, height = self.sizes[int(group_of(image.width, image.height, self.sizes))]
        left, top, crop_width, crop_height = random_crop(image.size, width / height, self.crop_scale)
        box = (left, top, left + crop_width, top + crop_height)
        return image.resize((width, height), Image.Resampling.BICUBIC, box=box)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, crop_scale={self.crop_scale}"


class LongerSide(nn.Module):
    """Resizes so that the longer side has a given number of pixels and the shorter side at least one.

    The part of an image that was cut out of what :func:`images.reading.read_image` returns keeps the scale of its
    image, unless ``boxes`` is ``full``. It must be the first step that changes the size.

    ``torchvision.transforms.v2.Resize(None, max_size=im_size)`` cuts the shorter side off instead of rounding it, down
    to no pixel at all for lines.
    """

    def __init__(self, im_size: int, boxes: str = "scale_of_image") -> None:
        super().__init__()
        if boxes not in _BOXES:
            raise ValueError(unknown_name("boxes", boxes, _BOXES))
        self.boxes = boxes
        self.im_size = check_whole("im_size", im_size, 1, why="pixels of the longer side")

    def forward(self, image: Image.Image) -> Image.Image:
        full_size = image.info.get(FULL_SIZE, image.size) if self.boxes == "scale_of_image" else image.size
        longer = max(full_size)
        width, height = (max(1, round(side * self.im_size / longer)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def extra_repr(self) -> str:
        return f"im_size={self.im_size}" + ("" if self.boxes == "scale_of_image" else f", boxes={self.boxes!r}")
