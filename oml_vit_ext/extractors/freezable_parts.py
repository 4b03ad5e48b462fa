"""What it means that a model, or a part of it, is frozen: the same for every model of this package."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from oml.interfaces.models import IFreezable
from torch import nn

from oml_vit_ext.common.messages import unknown_name


class FreezableParts(nn.Module, IFreezable):
    """``freeze()`` and ``unfreeze()`` of named parts, and of :attr:`default_parts` when called as OML does.

    A frozen part has no gradients and computes as in evaluation, also while the rest is trained: no dropout, no drop
    path, and its batch norms do not drift. ``train()``, as Lightning calls it before each epoch, leaves it so.

    Args:
        frozen: Parts that are frozen from the start; ``unfreeze()`` without names leaves them so.
    """

    # What OML's ``freeze_n_epochs`` freezes.
    default_parts: tuple[str, ...] = ()

    def __init__(self, frozen: Iterable[str] = ()) -> None:
        super().__init__()
        self._frozen: set[str] = set()
        self._always_frozen = frozenset(frozen)

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """Every part by name: its modules, and its parameters that belong to no module of their own."""

    def freeze(self, *parts: str) -> None:
        """Stop training ``parts``, by default :attr:`default_parts`.

        Raises:
            ValueError: There is no such part.
        """
        chosen = set(self._known(parts)) or set(self.default_parts)
        self._set_trained(chosen, False)
        self._frozen |= chosen

    def unfreeze(self, *parts: str) -> None:
        """Train ``parts`` again, by default :attr:`default_parts` without those that are frozen from the start.

        Raises:
            ValueError: There is no such part.
        """
        chosen = set(self._known(parts)) or set(self.default_parts) - self._always_frozen
        self._set_trained(chosen, True)
        self._frozen -= chosen

    def is_frozen(self, part: str) -> bool:
        """Whether a part is frozen now."""
        return part in self._frozen

    def freeze_from_the_start(self) -> None:
        """To be called at the end of the constructor, when the parts exist."""
        if self._known(self._always_frozen):
            self.freeze(*self._always_frozen)

    def train(self, mode: bool = True) -> Any:
        """Training or evaluation mode for all that is not frozen."""
        super().train(mode)
        for part in self._frozen:
            for member in self.parts()[part]:
                if isinstance(member, nn.Module):
                    member.eval()
        return self

    def _set_trained(self, parts: set[str], trained: bool) -> None:
        for part in parts:
            for member in self.parts()[part]:
                member.requires_grad_(trained)
                if isinstance(member, nn.Module):
                    member.train(trained and self.training)

    def _known(self, parts: Iterable[str]) -> tuple[str, ...]:
        for part in parts:
            if part not in self.parts():
                raise ValueError(unknown_name("part", part, self.parts()))
        return tuple(parts)
