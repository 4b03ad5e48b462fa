"""Learning curves from the TensorBoard files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_EVENTS = "events.out.tfevents.*"
_LEFT_OUT = {"epoch", "hp_metric"}


@dataclass(frozen=True)
class Curve:
    """One quantity over the iterations of a training.

    Attributes:
        name: As it was logged, e.g. ``OVERALL/cmc/1``.
        steps: Iterations, ascending.
        values: As many.
    """

    name: str
    steps: list[int]
    values: list[float]


def learning_curves(folder: Path | str) -> list[Curve]:
    """All scalars that a run has logged, losses first; a resumed run's files are joined, the latest value counts.

    Args:
        folder: Of the run; its event files may lie anywhere below it.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, tuple[float, float]]] = {}  # name -> step -> time, value
    for file in sorted(Path(folder).rglob(_EVENTS)):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            of_name = points.setdefault(name, {})
            for event in events.Scalars(name):
                if event.wall_time >= of_name.get(event.step, (float("-inf"), 0.0))[0]:
                    of_name[event.step] = event.wall_time, event.value
    curves = [
        Curve(name, sorted(of_name), [of_name[step][1] for step in sorted(of_name)])
        for name, of_name in points.items()
        if name not in _LEFT_OUT
    ]
    return sorted(curves, key=lambda curve: ("loss" not in curve.name, curve.name))
