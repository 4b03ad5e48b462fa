"""What several commands take is called the same in all of them."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from typer.testing import CliRunner

from oml_vit_ext.commands import options
from oml_vit_ext.commands.main import app


def test_arguments_of_one_name_are_one_option():
    shared = {"overrides": options.Overrides, "device": options.Device, "trust_weights": options.TrustWeights}
    seen = dict.fromkeys(shared, 0)
    for command in app.registered_commands:
        module = import_module(f"oml_vit_ext.commands.{str(command.name).replace('-', '_')}")
        function = getattr(module, str(command.name).replace("-", "_"))
        for name in shared.keys() & inspect.signature(function).parameters.keys():
            hints = inspect.get_annotations(function, eval_str=True, globals=vars(module))
            if command.name != "fit-head":
                assert hints[name] == shared[name], f"{command.name}: {name}"
                seen[name] += 1
    assert min(seen.values()) >= 2


@pytest.mark.parametrize("device", ["cuda:99", "cude"])
def test_a_device_that_is_not_there_is_told_before_anything_is_loaded(device: str):
    done = CliRunner().invoke(app, ["query", "cat.jpg", "--index", "none", "--device", device])
    told = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2 and f"device is '{device}', expected one that is here: cpu" in told


def test_a_device_that_is_there_is_taken():
    done = CliRunner().invoke(app, ["query", "cat.jpg", "--index", "none", "--device", "cpu"])
    assert done.exit_code == 1 and "is not an index" in done.output
