"""Extractors around another extractor."""

from __future__ import annotations

import copy
from typing import TypeVar

from oml.interfaces.models import IExtractor, IFreezable

W = TypeVar("W", bound="WrappedExtractor")


class WrappedExtractor(IExtractor, IFreezable):
    """Base of extractors that change what another extractor computes, or how.

    Width and freezing are those of the inner extractor, unless a subclass says otherwise.

    Args:
        extractor: The inner extractor.
    """

    def __init__(self, extractor: IExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def feat_dim(self) -> int:
        """Width of the embeddings."""
        return int(self.extractor.feat_dim)

    @property
    def used(self) -> IExtractor:
        """The inner extractor whose embeddings are used in evaluation."""
        return self.extractor

    def unwrapped(self) -> IExtractor:
        """The innermost extractor that is used in evaluation: no wrapper itself."""
        return self.used.unwrapped() if isinstance(self.used, WrappedExtractor) else self.used

    def around(self: W, extractor: IExtractor) -> W:
        """The same wrapper around another extractor; this one stays as it is. Both share their tensors."""
        other = copy.copy(self)
        other._modules = {**self._modules, "extractor": extractor}
        return other

    def freeze(self) -> None:
        """Freeze the inner extractor, in its own meaning.

        Raises:
            TypeError: It cannot be frozen.
        """
        self._freezable().freeze()

    def unfreeze(self) -> None:
        """Undo ``freeze()``.

        Raises:
            TypeError: The inner extractor cannot be frozen.
        """
        self._freezable().unfreeze()

    def _freezable(self) -> IFreezable:
        if not isinstance(self.extractor, IFreezable):
            raise TypeError(
                f"{type(self.extractor).__name__} cannot be frozen, expected an extractor that is IFreezable too."
            )
        return self.extractor


def unwrapped(extractor: IExtractor) -> IExtractor:
    """What an extractor is wrapped around, or the extractor itself if it is no wrapper of this package."""
    return extractor.unwrapped() if isinstance(extractor, WrappedExtractor) else extractor
