"""Many short runs, one row each in a CSV file: what is there already is not run again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from oml_vit_ext.common.files import write_frame

Row = dict


def run_missing(wanted: list[Row], table: Path, log: Path, run: Callable[[Row, Path], Row], unit: str) -> pd.DataFrame:
    """The rows of the ``wanted`` settings; those that ``table`` lacks are run first.

    Args:
        wanted: Settings, all with the same keys: together they say which run it is.
        table: CSV file, made if needed; every finished run is written at once.
        log: What the runs print goes there.
        run: Maps settings and an empty folder to the figures of the run.
        unit: A word for the progress bar.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    settings = list(wanted[0])
    missing = [w for w in wanted if rows_of([w], read_rows(table, settings)).empty]
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="run", desc=unit) as bar:
        for setting in missing:
            bar.set_postfix_str(", ".join(str(value) for value in setting.values())[:60])
            with printing_to(log), tempfile.TemporaryDirectory(dir=table.parent) as folder:
                figures = run(setting, Path(folder))
            append_row({**setting, **figures}, table, settings)
            bar.update()
    return rows_of(wanted, read_rows(table, settings))


def read_rows(table: Path, settings: Sequence[str]) -> pd.DataFrame:
    if not table.is_file():
        return pd.DataFrame(columns=list(settings))
    return pd.read_csv(table, dtype={"overrides": str}, keep_default_na=False)


def rows_of(settings: list[Row], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of exactly these settings."""
    names = list(settings[0])
    keys = {tuple(setting.values()) for setting in settings}
    return rows.loc[[key in keys for key in rows[names].itertuples(index=False, name=None)]]


def append_row(row: Row, table: Path, settings: Sequence[str]) -> None:
    write_frame(pd.DataFrame([*read_rows(table, settings).to_dict("records"), row]), table)


def spread(values: pd.Series, digits: int) -> str:
    """Mean, and with several values their standard deviation: ``0.505 ± 0.012``"""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


@contextlib.contextmanager
def printing_to(log: Path) -> Iterator[None]:
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
