"""An extractor whose parts can be frozen one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from oml.interfaces.models import IExtractor, IFreezable
from torch import nn

from oml_vit_ext.common.messages import unknown_name


class ExtractorWithParts(IExtractor, IFreezable):
    """``freeze()`` and ``unfreeze()`` of named parts, and of :attr:`default_parts` when called as OML does.

    A frozen part has no gradients and computes as in evaluation also while the rest is trained: its batch norms do not
    drift.

    Args:
        frozen: Parts that are frozen from the start; ``unfreeze()`` without names leaves them so.
    """

    # What OML's ``freeze_n_epochs`` is meant for.
    default_parts: tuple[str, ...] = ()

    def __init__(self, frozen: Iterable[str]) -> None:
        super().__init__()
        self._frozen: set[str] = set()
        self._always_frozen = frozenset(frozen)

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """Every part by name: its modules, and its parameters that belong to no module of their own."""

    def freeze(self, *parts: str) -> None:
        """Stop training ``parts``, by default :attr:`default_parts`."""
        chosen = set(self._known(parts)) or set(self.default_parts)
        self._set_trained(chosen, False)
        self._frozen |= chosen

    def unfreeze(self, *parts: str) -> None:
        """Train ``parts`` again, by default :attr:`default_parts` without those that are frozen from the start."""
        chosen = set(self._known(parts)) or set(self.default_parts) - self._always_frozen
        self._set_trained(chosen, True)
        self._frozen -= chosen

    def freeze_from_the_start(self) -> None:
        """To be called at the end of the constructor, when the parts exist."""
        if self._known(self._always_frozen):
            self.freeze(*self._always_frozen)

    def train(self, mode: bool = True) -> Any:
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
