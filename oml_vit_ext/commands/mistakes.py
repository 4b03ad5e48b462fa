"""All that is wrong with a config, found before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Mistake(NamedTuple):
    """Where it stands in the config, and a sentence; an error stops a run, a warning does not."""

    key: str
    sentence: str
    is_error: bool = True


def find_mistakes(cfg: DictConfig) -> list[Mistake]:
    """Errors first, then warnings."""
    import oml_vit_ext
    from oml_vit_ext.commands.wrong_arguments import wrong_arguments
    from oml_vit_ext.commands.wrong_data import wrong_data
    from oml_vit_ext.commands.wrong_machine import wrong_machine

    oml_vit_ext.register()
    found = [mistake for look in (wrong_arguments, wrong_data, wrong_machine) for mistake in look(cfg)]
    return sorted(dict.fromkeys(found), key=lambda mistake: not mistake.is_error)


def told(mistakes: Sequence[Mistake]) -> str:
    """One line for each."""
    return "\n".join(f"{'Error' if m.is_error else 'Warning'}: {m.sentence}" for m in mistakes)
