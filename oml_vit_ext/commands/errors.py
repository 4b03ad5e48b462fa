"""How a command ends when something is wrong: one sentence, and an exit code."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import typer

WRONG_INPUT, UNEXPECTED, INTERRUPTED = 1, 3, 130
_OF_PIPELINES = {"hydra", "omegaconf", "pytorch_lightning"}
_OF_CONFIGS = ("hydra.", "omegaconf.", "yaml.")  # where errors come from that are told in a sentence as well
_EXPECTED = (ValueError, OSError, RuntimeError, TypeError, ImportError)


def in_one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """The command, but what it raises for its user's sake is printed as a sentence.

    The exit code is 1 where an input or a setting is wrong, 3 for any other error, whose traceback is printed for a
    report, 130 for an interruption.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        warnings.showwarning = _note
        for stream in (sys.stdout, sys.stderr):  # names of files may hold what the screen has no characters for
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise _end("Interrupted.", INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or type(error).__module__.startswith(("typer.", "click.")):
                raise
            if isinstance(error, _EXPECTED) or type(error).__module__.startswith(_OF_CONFIGS):
                raise _end(f"Error: {_sentence(error)}", WRONG_INPUT) from error
            traceback.print_exc()
            raise _end(f"Error: {type(error).__name__}: {error}. This should not happen.", UNEXPECTED) from error

    return run


@contextlib.contextmanager
def leaving_in_one_sentence() -> Iterator[None]:
    """The same for a script: what is wrong with an input is printed, and the script ends."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(_sentence(error)) from error


def _sentence(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] in _OF_PIPELINES:
        return f"this command needs {error.name}, which is not installed: pip install 'oml-vit-ext[pipelines]'."
    speaks = isinstance(error, ValueError | OSError | RuntimeError) or type(error).__module__.startswith(
        ("hydra.", "yaml.")
    )
    return text if speaks and text else f"{type(error).__name__}: {text}"


def _end(text: str, code: int) -> typer.Exit:
    print(text, file=sys.stderr)
    return typer.Exit(code)


def _note(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Warnings that are for users: not what libraries tell those who call them."""
    if issubclass(category, UserWarning) and "oml_vit_ext" in filename:
        print(f"Note: {message}", file=sys.stderr)
