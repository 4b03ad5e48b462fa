"""Image files: which there are, how large they are, and their pixels."""

from oml_vit_ext.images.reading import read_image

__all__ = ["read_image"]
