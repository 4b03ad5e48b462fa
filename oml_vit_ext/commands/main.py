"""``oml-vit-ext``: all commands together."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from oml_vit_ext.commands.errors import in_one_sentence
from oml_vit_ext.common.home import argument_with_home

# In the order of the help. Each is the function of this name, with _ for -, in the module of the same name.
COMMANDS = (
    "info",
    "check",
    "convert",
    "train",
    "validate",
    "predict",
    "train-reranker",
    "validate-reranker",
    "fit-pca",
    "fit-fusion",
    "fit-head",
    "index",
    "query",
    "sync",
    "revisited",
    "report",
    "app",
    "demo",
)


class _Commands(TyperGroup):
    """``~/`` is the user's folder wherever a path is typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [argument_with_home(argument) for argument in args])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Vision transformers for image retrieval (IRT, DToP, STIR) with open-metric-learning.\n\n"
    "Exit codes: 0 done, 1 an input or a setting is wrong (one sentence says which), 2 the command line is wrong, "
    "3 an error that should not happen (please report it), 130 interrupted.",
)


@app.callback()
def main() -> None:
    pass


def _with_whole_examples(text: str) -> str:
    """What is indented is to be copied, so it is not broken into lines again: click's sign for that is a backspace."""
    return "\n\n".join(f"\b\n{part}" if part.startswith(" ") else part for part in text.split("\n\n"))


for _name in COMMANDS:
    _function = _name.replace("-", "_")
    _command = getattr(import_module(f"oml_vit_ext.commands.{_function}"), _function)
    app.command(_name, help=_with_whole_examples(inspect.getdoc(_command) or ""))(in_one_sentence(_command))
