"""Where a training is, and how another process goes on from exactly there.

Lightning 2.1 goes on from a checkpoint within an epoch with the epoch's first batches again, and counts epochs anew
where a training is counted in steps. We restart the epoch's loader with the random states that it started with, pass
over the batches that were trained on, and go on with the random states of the checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch.distributed as dist

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.distributed import rank_and_world
from oml_vit_ext.common.random_states import RandomStates, check_random_states, random_states, set_random_states


@dataclass
class Position:
    """What a checkpoint of Lightning does not hold."""

    epoch: int
    batches: int  # of this epoch that were trained on
    at_epoch_start: list[RandomStates]  # of each process, before the epoch's first batch was drawn
    now: list[RandomStates]  # of each process

    def of_this_process(self, which: str) -> RandomStates:
        """``at_epoch_start`` or ``now``; a process more than there were takes the first one's."""
        states: list[RandomStates] = getattr(self, which)
        rank = rank_and_world()[0]
        return states[rank if rank < len(states) else 0]

    state_dict = asdict

    @classmethod
    def from_dict(cls, content: Any) -> Position:
        """Of what ``state_dict`` gave.

        Raises:
            ValueError: It is something else; another version wrote it, perhaps.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or set(content) != set(names):
            found = ", ".join(sorted(map(str, content))) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"its position holds {found:.80}, expected {', '.join(names)}: made by another version?")
        position = cls(**content)
        for name in ("epoch", "batches"):
            check_whole(f"{name} of its position", content[name], 0, 2**53)
        for name in ("at_epoch_start", "now"):
            if not isinstance(content[name], list) or not content[name]:
                raise ValueError(f"{name} of its position is a {type(content[name]).__name__}, expected random states.")
            for states in content[name]:
                check_random_states(states)
        return position


def position_of(trainer: Any, at_epoch_start: RandomStates, now: RandomStates | None) -> Position:
    """The position of a running training, called by all processes. An epoch that is done is the next one's start.

    Args:
        trainer: Lightning's.
        at_epoch_start: Random states of this process, before the epoch's first batch was drawn.
        now: Those to go on with; ``None``: the present ones.
    """
    now = random_states() if now is None else now
    epochs, loop = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop
    within_epoch = epochs.started > epochs.processed
    batches = loop.batch_progress.current.processed
    if not within_epoch or batches == trainer.num_training_batches:
        return Position(epochs.started, 0, _of_all_processes(now), _of_all_processes(now))
    return Position(epochs.processed, batches, _of_all_processes(at_epoch_start), _of_all_processes(now))


def place_loops(loops: dict[str, Any], position: Position) -> None:
    """Put the counters of Lightning's loops, as a checkpoint holds them, to a position between two batches."""
    fit = loops["fit_loop"]
    _set_all(fit["epoch_progress"]["current"], position.epoch)
    batches = fit["epoch_loop.batch_progress"]
    _set_all(batches["current"], position.batches)
    _set_all(batches["total"], batches["total"]["processed"])
    batches["is_last_batch"] = False


def go_on_from(trainer: Any, position: Position) -> None:
    """Have a trainer that is about to start its loops go on from a position; its checkpoint has been restored."""
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    # Not "restarting": Lightning would validate again, or train on a batch more than the epoch has. A private name, as
    # the public one is always True for a training that is counted in steps.
    fit_loop._restarting = False
    epoch_loop.restarting = False
    advance = epoch_loop.advance

    def pass_over_and_advance(fetcher: Any) -> None:
        del epoch_loop.advance  # this object's: from now on again that of the class
        if position.epoch > 0:  # the first epoch's loader was started with these states before
            set_random_states(position.of_this_process("at_epoch_start"))
            iter(fetcher)
        for _ in range(position.batches):
            next(fetcher)
        progress = epoch_loop.batch_progress.current
        for counter in vars(progress):
            setattr(progress, counter, position.batches)
        if position.batches > 0:  # else they are those from before the loader was started
            set_random_states(position.of_this_process("now"))
        advance(fetcher)

    epoch_loop.advance = pass_over_and_advance


def _set_all(counters: dict[str, int], value: int) -> None:
    for name in counters:
        counters[name] = value


def _of_all_processes(states: RandomStates) -> list[RandomStates]:
    _, world = rank_and_world()
    if world == 1:
        return [states]
    found: list[Any] = [None] * world
    dist.all_gather_object(found, states)
    return found
