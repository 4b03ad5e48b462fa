"""Our way of reading image files inside OML's data sets: where a transform asks for it, or for all of a process.

OML picks its reader by the kind of transforms. It leaves photos on their side, cuts 16-bit grey off at white, puts
transparent parts on black and decodes a bomb. Whoever uses OML with its own transforms alone keeps that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oml.utils.images.images import draw_bbox
from wrapt import register_post_import_hook

from oml_vit_ext.images.reading import read_array, read_image
from oml_vit_ext.oml_patches.replacing import replace
from oml_vit_ext.transforms.upright import asks_for_upright, reader_for

_READERS = ("oml.datasets.images", "oml.lightning.pipelines.predict")  # modules that pick a reader by name

_reads_all = False


def read_all_upright() -> None:
    """From now on all of OML's data sets in this process read images as this package does, whatever their transforms.

    The scripts of this package call it.
    """
    global _reads_all
    _reads_all = True


def read_upright_where_asked() -> None:
    """Have OML's data sets read with our reader where the transforms hold the step ``Upright``, as all of ours do."""
    for module in _READERS:
        register_post_import_hook(_pick_our_reader, module)
    register_post_import_hook(_draw_what_is_read, "oml.datasets.images")


def _pick_our_reader(module: Any) -> None:
    def wrap(get_reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def get_ours_where_asked(transforms: Any) -> Any:
            return reader_for(transforms) if _reads_all or asks_for_upright(transforms) else get_reader(transforms)

        return get_ours_where_asked

    effect = f"{module.__name__} reads images upright for transforms that ask for it"
    replace(module, "get_im_reader_for_transforms", wrap, effect)


def _draw_what_is_read(module: Any) -> None:
    def wrap(visualize: Callable[..., NDArray[Any]]) -> Callable[..., NDArray[Any]]:
        def visualize_as_read(self: Any, item: int, color: Any = module.BLACK) -> NDArray[Any]:
            if self._f_imread not in (read_image, read_array):
                return visualize(self, item, color)
            box = self._bboxes[item] if self._bboxes is not None else None
            drawn: NDArray[Any] = draw_bbox(read_array(self.read_bytes(self._paths[item])), box, color)
            return np.asarray(drawn)

        return visualize_as_read

    replace(module.ImageBaseDataset, "visualize", wrap, "images that are read upright are drawn upright")
