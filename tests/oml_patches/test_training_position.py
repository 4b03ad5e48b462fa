"""Where a training is, and that another process goes on from exactly there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loops.progress import _BatchProgress, _Progress

from helpers.trainings import assert_same
from oml_vit_ext.common.random_states import RandomStates, random_states, set_random_states
from oml_vit_ext.oml_patches import training_position
from oml_vit_ext.oml_patches.training_position import Position, go_on_from, place_loops, position_of

N_BATCHES = 4
START, NOW = {"states": "at epoch start"}, {"states": "now"}


def _trainer(*, epochs_started: int, epochs_done: int, batches: int) -> Any:
    """Lightning's counters in a training."""
    epochs, progress = _Progress(), _BatchProgress()
    epochs.current.started, epochs.current.processed = epochs_started, epochs_done
    progress.current.ready = progress.current.started = progress.current.processed = batches
    loop = SimpleNamespace(epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(fit_loop=loop, num_training_batches=N_BATCHES)


@pytest.mark.parametrize(
    ("started", "done", "batches", "expected"),
    [
        (3, 2, 1, (2, 1, START)),  # within the third epoch
        (3, 2, N_BATCHES, (3, 0, NOW)),  # it has trained, its validation may be to come
        (3, 3, N_BATCHES, (3, 0, NOW)),  # it is done
        (1, 0, 0, (0, 0, START)),  # nothing has been trained
    ],
)
def test_the_end_of_an_epoch_is_the_start_of_the_next(started: int, done: int, batches: int, expected: tuple):
    position = position_of(_trainer(epochs_started=started, epochs_done=done, batches=batches), START, NOW)
    epoch, n, at_epoch_start = expected
    assert position == Position(epoch, n, [at_epoch_start], [NOW])


def test_without_random_states_the_present_ones_are_kept():
    found = position_of(_trainer(epochs_started=1, epochs_done=0, batches=2), START, None)
    assert_same(found.now, [random_states()], "now")


@pytest.mark.parametrize(("rank", "expected"), [(0, "a"), (1, "b"), (2, "a"), (7, "a")])
def test_a_process_more_than_there_were_takes_the_first_ones_states(
    rank: int, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training_position, "rank_and_world", lambda: (rank, 8))
    position = Position(0, 0, at_epoch_start=[{"of": "a"}, {"of": "b"}], now=[{"of": "now"}])
    assert position.of_this_process("at_epoch_start") == {"of": expected}
    assert position.of_this_process("now") == {"of": "now"}


def test_lightning_restores_the_counters_of_the_position():
    """A checkpoint written while a batch is under way, put to the position before it."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    progress = trainer.fit_loop.epoch_loop.batch_progress
    progress.total.load_state_dict({"ready": 14, "started": 14, "processed": 13, "completed": 12})
    progress.current.load_state_dict({"ready": 4, "started": 4, "processed": 3, "completed": 2})
    progress.is_last_batch = True
    loops = {"fit_loop": trainer.fit_loop.state_dict()}
    place_loops(loops, Position(5, 3, [], []))
    resumed = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    resumed.fit_loop.load_state_dict(loops["fit_loop"])
    restored = resumed.fit_loop.epoch_loop.batch_progress
    assert set(vars(resumed.fit_loop.epoch_progress.current).values()) == {5}
    assert set(vars(restored.current).values()) == {3} and set(vars(restored.total).values()) == {13}
    assert not restored.is_last_batch


class Loader:
    """Shuffles when an epoch starts, and draws a random number for each batch."""

    def __iter__(self) -> Iterator[Any]:
        self.order = random.sample(range(100), N_BATCHES)
        return self

    def __next__(self) -> tuple[int, float]:
        return self.order.pop(), random.random()


class Loop:
    """An epoch as Lightning trains it; the model draws random numbers, too."""

    def __init__(self) -> None:
        self.batch_progress, self.restarting = _BatchProgress(), True
        self.seen: list[Any] = []

    def advance(self, loader: Loader) -> None:
        self.seen.append((next(loader), random.random()))


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_the_batches_and_random_numbers_that_follow_are_those_of_an_uninterrupted_epoch(epoch: int, batches: int):
    random.seed(epoch)
    at_start, loader, whole, states = random_states(), iter(Loader()), Loop(), []
    for _ in range(N_BATCHES):
        states.append(random_states())
        whole.advance(loader)
    # At the start of an epoch a checkpoint holds the states from before the loader was started.
    now: RandomStates = states[batches] if batches else at_start

    resumed = Loop()
    fit_loop = SimpleNamespace(_restarting=True, epoch_loop=resumed)
    random.seed(99)
    if epoch == 0:  # Lightning starts its loader before the loop, so the callback has set them already
        set_random_states(at_start)
    loader = iter(Loader())
    go_on_from(SimpleNamespace(fit_loop=fit_loop), Position(epoch, batches, [at_start], [now]))
    for _ in range(N_BATCHES - batches):
        resumed.advance(loader)
    assert resumed.seen == whole.seen[batches:]
    assert not fit_loop._restarting and not resumed.restarting
    assert set(vars(resumed.batch_progress.current).values()) == {batches}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": -1}, "batches of its position is -1, expected a whole number"),
        ({"epoch": 10**30}, "epoch of its position is 1000"),
        ({"now": []}, "now of its position is a list, expected random states"),
        ({"at_epoch_start": [{}]}, "holds no random states"),
        ({"later": 1}, "holds .*later.*, expected epoch, batches, at_epoch_start, now: made by another version"),
    ],
)
def test_a_position_that_cannot_be_is_told(change: dict[str, Any], message: str):
    written = Position(2, 1, [random_states()], [random_states()]).state_dict()
    assert Position.from_dict(written).batches == 1
    with pytest.raises(ValueError, match=message):
        Position.from_dict({**written, **change})
    with pytest.raises(ValueError, match="its position holds list"):
        Position.from_dict([])
