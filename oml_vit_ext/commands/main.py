"""``oml-vit-ext``: all commands together."""

from __future__ import annotations

from importlib import import_module

import typer

from oml_vit_ext.commands.errors import in_one_sentence

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

app = typer.Typer(
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


for _name in COMMANDS:
    _function = _name.replace("-", "_")
    app.command(_name)(in_one_sentence(getattr(import_module(f"oml_vit_ext.commands.{_function}"), _function)))
