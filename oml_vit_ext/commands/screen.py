"""Progress bars and results are what stays on the screen."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def say(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)


def quieten() -> None:
    """No warnings, nothing of Lightning that is not an error, and not what we change in OML."""
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("oml_vit_ext.oml_patches").setLevel(logging.WARNING)


@contextlib.contextmanager
def without_config_dump() -> Iterator[None]:
    """OML's pipelines print the whole config first: not in this block."""
    import oml.lightning.pipelines.predict as oml_predict
    import oml.lightning.pipelines.train as oml_train
    import oml.lightning.pipelines.train_postprocessor as oml_train_postprocessor
    import oml.lightning.pipelines.validate as oml_validate

    modules: tuple[Any, ...] = (oml_train, oml_train_postprocessor, oml_validate, oml_predict)
    before = [m.pprint for m in modules]
    for m in modules:
        m.pprint = lambda *_: None
    try:
        yield
    finally:
        for m, pprint in zip(modules, before, strict=True):
            m.pprint = pprint


def in_few_words(task: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The task of a config, without its config on the screen: Hydra keeps that in the folder of the run."""

    @functools.wraps(task)
    def run(cfg: Any) -> Any:
        with without_config_dump():
            return task(cfg)

    return run
