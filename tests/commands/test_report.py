"""``report`` from its command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer
from typer.testing import CliRunner

from oml_vit_ext.commands.report import report


def _call(*arguments: str):
    program = typer.Typer()
    program.command()(report)
    return CliRunner().invoke(program, list(arguments))


def test_it_writes_the_page_into_the_run_and_prints_the_figures(extractor_run: Path):
    done = _call(str(extractor_run), "--device", "cpu", "--queries", "4")
    assert done.exit_code == 0, done.output
    page = (extractor_run / "report.html").read_text()
    row = next(line for line in done.output.splitlines() if line.startswith("extractor_with_momentum"))
    assert f"<td>{row.split()[1]}</td>" in page and str(extractor_run / "report.html") in done.output


def test_where_it_is_to_go(reranker_run: Path, tmp_path: Path):
    done = _call(str(reranker_run), "--to", str(tmp_path / "there/page.html"), "--device", "cpu", "--queries", "2")
    assert done.exit_code == 0 and "re-ranked" in (tmp_path / "there/page.html").read_text()


def test_no_run(tmp_path: Path):
    done = _call(str(tmp_path))
    assert done.exit_code != 0 and "has no .hydra/config.yaml" in str(done.exception)


def test_photos_that_have_moved_since(extractor_run: Path, data_of_runs: Path, tmp_path: Path):
    shutil.copytree(extractor_run, tmp_path / "run")
    config = tmp_path / "run/.hydra/config.yaml"
    config.write_text(config.read_text().replace(str(data_of_runs), str(tmp_path / "before")))
    done = _call(str(tmp_path / "run"), "--device", "cpu")
    assert done.exit_code != 0 and "say where they are now: --root FOLDER" in str(done.exception)
    done = _call(str(tmp_path / "run"), "--root", str(data_of_runs), "--device", "cpu", "--queries", "2")
    assert done.exit_code == 0, done.output
    here = _call(str(extractor_run), "--device", "cpu", "--queries", "2", "--to", str(tmp_path / "here.html"))
    rows = [
        next(line for line in printed.splitlines() if line.startswith("extractor_with_momentum"))
        for printed in (done.output, here.output)
    ]
    assert rows[0] == rows[1]
