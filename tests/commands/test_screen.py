"""What stays on the screen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import oml.lightning.pipelines.train as pipeline
import pytest

from oml_vit_ext.commands.screen import quieten, say, without_config_dump


def test_the_config_is_not_printed_in_the_block_alone(capsys: pytest.CaptureFixture):
    with without_config_dump():
        pipeline.pprint({"inside": 1})
    pipeline.pprint({"after": 1})
    say("Training")
    printed = capsys.readouterr().out
    assert "inside" not in printed and "after" in printed and "=== Training ===" in printed


@pytest.fixture()
def levels() -> Iterator[dict[str, logging.Logger]]:
    """Loggers by their names, with the levels that they had afterwards."""
    names = (
        "pytorch_lightning",
        "pytorch_lightning.utilities.rank_zero",
        "lightning_fabric",
        "oml_vit_ext.oml_patches",
    )
    loggers = {name: logging.getLogger(name) for name in names}
    before = {name: logger.level for name, logger in loggers.items()}
    yield loggers
    for name, level in before.items():
        loggers[name].setLevel(level)


def test_a_training_on_the_command_line_is_quiet(levels: dict[str, logging.Logger], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    patches = logging.getLogger("oml_vit_ext.oml_patches.replacing")
    with warnings.catch_warnings():
        patches.info("told before")
        quieten()
        patches.info("silent")
        levels["pytorch_lightning"].warning("silent")
        patches.warning("told after")
    assert [record.message for record in caplog.records] == ["told before", "told after"]
