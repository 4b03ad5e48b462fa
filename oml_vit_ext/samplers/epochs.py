"""Batch samplers whose batches depend on the epoch, and how they learn which epoch it is."""

from __future__ import annotations

from collections.abc import Callable

from oml.interfaces.samplers import IBatchSampler


class EpochBatchSampler(IBatchSampler):
    """Each iteration is an epoch, counted from 0, unless :meth:`follow_epochs` says which one it is."""

    _iterations = 0
    _epoch_of_trainer: Callable[[], int] | None = None

    def follow_epochs(self, epoch: Callable[[], int]) -> None:
        """Iterations belong to the epoch that ``epoch`` tells, instead of being counted.

        In OML's pipeline this is the trainer's epoch, so that a resumed training goes on with its own batches.
        """
        self._epoch_of_trainer = epoch

    def _next_epoch(self) -> int:
        """The epoch of the iteration that begins."""
        counted, self._iterations = self._iterations, self._iterations + 1
        return counted if self._epoch_of_trainer is None else self._epoch_of_trainer()
