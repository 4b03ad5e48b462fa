"""How commands end when something is wrong."""

from __future__ import annotations

import io
import warnings

import pytest
import typer
import yaml

from oml_vit_ext.commands.errors import in_one_sentence, leaving_in_one_sentence


def _ends(error: BaseException, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as stop:
        in_one_sentence(command)()
    return stop.value.exit_code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("k is 0, expected at least 1."), 1, "Error: k is 0, expected at least 1.\n"),
        (FileNotFoundError("There is no photo."), 1, "Error: There is no photo.\n"),
        (TypeError("unexpected argument"), 1, "Error: TypeError: unexpected argument\n"),
        (ModuleNotFoundError("No module", name="hydra"), 1, "pip install 'oml-vit-ext[pipelines]'"),
        (yaml.scanner.ScannerError("while scanning", problem="found a tab"), 1, "Error: while scanning\nfound a tab\n"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture
):
    found, printed = _ends(error, capsys)
    assert found == code and said in printed and "Traceback" not in printed


def test_what_should_not_happen_comes_with_its_traceback(capsys: pytest.CaptureFixture):
    code, printed = _ends(KeyError("lost"), capsys)
    assert code == 3 and "Traceback" in printed and "This should not happen." in printed


def test_an_exit_of_the_command_itself_stays(capsys: pytest.CaptureFixture):
    assert _ends(typer.Exit(7), capsys) == (7, "")


def test_a_script_leaves_with_the_sentence():
    with pytest.raises(SystemExit, match="k is 0"), leaving_in_one_sentence():
        raise ValueError("k is 0")


def test_names_that_a_screen_has_no_characters_for(monkeypatch: pytest.MonkeyPatch):
    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(screen, encoding="ascii"))
    in_one_sentence(lambda: print("日 \udcff.jpg", flush=True))()
    assert screen.getvalue() == b"\\u65e5 \\udcff.jpg\n"


def test_warnings_of_libraries_are_not_for_users(capsys: pytest.CaptureFixture):
    def command() -> None:
        warnings.warn_explicit("an old name", DeprecationWarning, "elsewhere.py", 1)
        warnings.warn_explicit("a photo is left out", UserWarning, "oml_vit_ext/datasets/x.py", 1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        in_one_sentence(command)()
    assert capsys.readouterr().err == "Note: a photo is left out\n"
