"""The two checkpoints of a run: ``best.ckpt`` as OML keeps it, and ``last.ckpt`` to resume from."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.files import UNFINISHED
from oml_vit_ext.common.random_states import RandomStates, random_states, set_random_states
from oml_vit_ext.oml_patches.checkpoint_files import CheckpointFiles
from oml_vit_ext.oml_patches.training_position import Position, go_on_from, place_loops, position_of

logger = logging.getLogger(__name__)

POSITION = "oml_vit_ext_position"  # key in a checkpoint
LAST = "last.ckpt"
# What optimizers of torch keep for each number of a parameter.
_MOMENTS = {
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "acc_delta",
    "grad_avg",
}


class RunCheckpoints(ModelCheckpoint):
    """OML's checkpoint callback, which writes ``last.ckpt`` too and goes on from a checkpoint exactly.

    Args:
        like: The callback that OML has made.
        resume: Checkpoint to go on from.
        save_iterations: Steps between two writes of ``last.ckpt`` besides those at the end of each epoch.
    """

    def __init__(self, like: ModelCheckpoint, resume: Path | None = None, save_iterations: int | None = None) -> None:
        super().__init__(
            dirpath=like.dirpath,
            filename=like.filename,
            monitor=like.monitor,
            mode=like.mode,
            save_top_k=like.save_top_k,
            verbose=like.verbose,
            enable_version_counter=False,  # a resumed run would go on with best-v1.ckpt
        )
        self.folder = Path(str(like.dirpath)).resolve()
        self.dirpath = str(self.folder)
        self.resume = resume
        self.has_begun = False  # to train, with all that the checkpoint held
        self.save_iterations = save_iterations
        self._position: Position | None = None  # to go on from
        self._at_epoch_start: RandomStates = {}
        self._now: RandomStates | None = None  # when last.ckpt is due, until it is written
        self._step_of_last = 0
        # From a checkpoint of the same folder, wherever the folder was when it was written.
        self._resumes_here = resume is not None and resume.parent.resolve() == self.folder
        self._own: set[Path] = set()  # files of this run, to be replaced
        if resume is not None and self._resumes_here:
            best = f"{self.filename}{self.FILE_EXTENSION}"
            names = [LAST, best] if resume.name == LAST else [resume.name]
            self._own = {self.folder / name for name in names}

    @property
    def state_key(self) -> str:
        """That of OML's, so that either can go on with the other's checkpoints."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    # --- writing

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CheckpointFiles()
        if self._resumes_here and trainer.is_global_zero:
            self._remove_unfinished()

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(trainer, *args, **kwargs)
        step = trainer.global_step
        if self.save_iterations and step % self.save_iterations == 0 and step != self._step_of_last:
            # Written when the next batch starts: a validation may come first, and its metrics belong to this step.
            self._now = random_states()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._now is not None:
            self._now = random_states()
        super().on_validation_end(trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if self._now is not None:
            self._write_last(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The end of the epoch before: not before now have all schedulers made their step."""
        self._now = None
        self._write_last(trainer)
        if self._position is not None:
            self._at_epoch_start = self._position.of_this_process("at_epoch_start")
            self._position = None
        elif trainer.current_epoch > 0:
            self._at_epoch_start = random_states()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._now = None
        self._write_last(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        position = position_of(trainer, self._at_epoch_start, self._now)
        place_loops(checkpoint["loops"], position)
        checkpoint[POSITION] = position.state_dict()

    def _write_last(self, trainer: Any) -> None:
        if trainer.global_step == self._step_of_last or trainer.fast_dev_run:
            return
        file = self.folder / LAST
        self._set_aside(trainer, file)
        trainer.save_checkpoint(file)
        self._now = None
        self._step_of_last = trainer.global_step

    def _remove_unfinished(self) -> None:
        """What the run was writing when it was killed."""
        for file in self.folder.iterdir():
            if re.fullmatch(UNFINISHED.format(f"({self.filename}|{Path(LAST).stem})"), file.name):
                file.unlink(missing_ok=True)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        self._set_aside(trainer, Path(filepath))
        super()._save_checkpoint(trainer, filepath)

    def _set_aside(self, trainer: Any, file: Path) -> None:
        """Keep what another run has left under this name, as ``last-v1.ckpt``, before it is replaced."""
        if trainer.is_global_zero and file not in self._own and file.is_file():
            names = (file.with_stem(f"{file.stem}-v{n}") for n in itertools.count(1))
            free = next(name for name in names if not name.exists())
            os.replace(file, free)
            logger.warning("%s is of another run and was renamed to %s.", file, free.name)
        self._own.add(file)

    # --- going on

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best score counts where the run goes on in its folder, else the new folder gets a best one of its own."""
        if self._resumes_here:
            if not _is_state(state_dict):
                raise ValueError(
                    f"Checkpoint {str(self.resume)!r} holds {state_dict!r:.80} as the state of its best ones, expected "
                    f"their paths and scores."
                )
            moved = _moved(state_dict, str(state_dict["dirpath"]), str(self.folder))
            super().load_state_dict({**moved, "dirpath": self.dirpath})

    def _remove_checkpoint(self, trainer: Any, filepath: str) -> None:
        """What this run has written; Lightning would remove any file or folder that a checkpoint calls its best one."""
        file = Path(filepath)
        if file in self._own and file != self.resume and file.is_file():
            super()._remove_checkpoint(trainer, filepath)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._step_of_last = checkpoint["global_step"]
        if POSITION not in checkpoint:
            logger.warning(
                "%s was written without `resume` in the config: the training goes on as Lightning does it, with other "
                "random numbers than it would have had.",
                self.resume,
            )
            return
        try:
            self._position = Position.from_dict(checkpoint[POSITION])
        except ValueError as error:
            raise ValueError(f"Checkpoint {str(self.resume)!r} cannot be resumed from: {error}") from error

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Before Lightning starts the loader of the first epoch."""
        if self._position is not None and self._position.epoch == 0:
            set_random_states(self._position.of_this_process("at_epoch_start"))
        self._at_epoch_start = random_states()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if self.resume is not None:
            check_optimizers(trainer.optimizers)
        self.has_begun = True
        if self._position is not None:
            go_on_from(trainer, self._position)


def check_optimizers(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Look at what optimizers have restored, which they take as it is.

    Raises:
        ValueError: They are of another kind of optimizer; a moment has not the shape of its parameter; or a moment or a
            learning rate is not finite.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if missing := sorted(optimizer.defaults.keys() - group.keys()):
                raise ValueError(
                    f"it is of another optimizer than {type(optimizer).__name__}: no {', '.join(missing)}."
                )
            check_number("the learning rate of its optimizer", _number(group["lr"]))
        for parameter, state in optimizer.state.items():
            shape = tuple(parameter.shape)
            for name in _MOMENTS & state.keys():
                moment = state[name]
                if moment is None or (isinstance(moment, Tensor) and moment.layout != torch.strided):
                    continue
                if not isinstance(moment, Tensor) or tuple(moment.shape) != shape or not moment.isfinite().all():
                    found = tuple(moment.shape) if isinstance(moment, Tensor) else type(moment).__name__
                    raise ValueError(f"{name} of its optimizer is {found}, expected finite numbers of shape {shape}.")


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _is_state(state: Any) -> bool:
    """Whether Lightning can go on with it."""
    best = state.get("best_k_models") if isinstance(state, dict) else None
    if not isinstance(best, dict) or not isinstance(state.get("dirpath"), (str, Path)):
        return False
    scores = [*best.values(), *(state[name] for name in ("best_model_score", "kth_value") if best and name in state)]
    paths = [*best, state.get("best_model_path"), state.get("last_model_path", "")]
    are_numbers = all(isinstance(s, (int, float)) or (isinstance(s, Tensor) and s.numel() == 1) for s in scores)
    knows_the_worst = not best or state.get("kth_best_model_path") in best
    return are_numbers and knows_the_worst and all(isinstance(path, str) for path in paths)


def _moved(value: Any, before: str, now: str) -> Any:
    """The state with the paths of its checkpoints in another folder."""
    if isinstance(value, dict):
        return {_moved(k, before, now): _moved(v, before, now) for k, v in value.items()}
    is_inside = isinstance(value, str) and Path(value).parent == Path(before)
    return str(Path(now) / Path(value).name) if is_inside else value
