"""Images to tensors: the transforms of IRT and DToP."""

from oml_vit_ext.transforms.dtop import get_augs_dtop, get_norm_resize_dtop
from oml_vit_ext.transforms.irt import get_augs_irt, get_norm_resize_irt

__all__ = ["get_augs_dtop", "get_augs_irt", "get_norm_resize_dtop", "get_norm_resize_irt"]
