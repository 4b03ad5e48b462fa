"""The former place of ``oml_vit_ext.images.sizes``, for scripts written for 0.1."""

import warnings

from oml_vit_ext.images.sizes import ImageSizes, read_image_sizes

__all__ = ["ImageSizes", "read_image_sizes"]

warnings.warn(
    "oml_vit_ext.samplers.image_sizes is now oml_vit_ext.images.sizes; the old name will go with 1.0.",
    FutureWarning,
    stacklevel=2,
)
