"""``oml-vit-ext`` in this process: what it prints, and how it ends."""

from __future__ import annotations

from typer.testing import CliRunner

from oml_vit_ext.commands.main import app

# Hydra's own loggers would be those of the tests after this one.
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]


def ends(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def succeeds(*arguments: str) -> str:
    code, printed = ends(*arguments)
    assert code == 0, printed
    return printed


def fails(*arguments: str, code: int = 1) -> str:
    """What was printed; it must have ended with this code, and without a traceback."""
    found, printed = ends(*arguments)
    assert found == code, printed
    assert "Traceback" not in printed
    return printed
