"""What stays on the screen."""

from __future__ import annotations

import oml.lightning.pipelines.train as pipeline
import pytest

from oml_vit_ext.commands.screen import say, without_config_dump


def test_the_config_is_not_printed_in_the_block_alone(capsys: pytest.CaptureFixture):
    with without_config_dump():
        pipeline.pprint({"inside": 1})
    pipeline.pprint({"after": 1})
    say("Training")
    printed = capsys.readouterr().out
    assert "inside" not in printed and "after" in printed and "=== Training ===" in printed
