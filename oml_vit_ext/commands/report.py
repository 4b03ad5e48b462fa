"""``oml-vit-ext report``: one page on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oml_vit_ext.commands.options import Device


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a training or a validation, e.g. logs/irt/train_photos/…")],
    to: Annotated[Path | None, typer.Option(help="The page. Default: report.html in the folder of the run.")] = None,
    reranker: Annotated[
        Path | None, typer.Option(help="Folder of a re-ranker's run: also show what it does to the hits.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: checkpoints/best.ckpt of the run.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the photos of the run, and their dataframe, are now, if moved.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="At most so many are shown; figures are of all.")] = 96,
    hits: Annotated[int, typer.Option(min=1, help="Per query, at most so many are shown.")] = 8,
    thumbnail: Annotated[int, typer.Option(min=16, max=1024, help="Longer side of a picture, px.")] = 144,
    device: Device = None,
) -> None:
    """Write one HTML page on a run: its figures, queries with their hits, learning curves.

    The run's best model is validated on the run's own data set. The page needs no other file and no network: open it,
    or send it to somebody.

    Examples:

        oml-vit-ext report logs/irt/train_photos/irt_r_2026-01-31_12-00-00

        oml-vit-ext report runs/photos --reranker runs/stir --to report.html

        oml-vit-ext report runs/photos --root /mnt/photos
    """
    from oml_vit_ext.pictures.report import report_of_run, write_report

    made = report_of_run(
        run,
        checkpoint=checkpoint,
        reranker=reranker,
        root=root,
        n_queries=queries,
        n_hits=hits,
        side=thumbnail,
        device=device,
        verbose=True,
    )
    page = write_report(made, to or run / "report.html")
    for row in [made.metrics.header, *made.metrics.rows]:
        typer.echo("".join([f"{row[0]:20}", *(f"{cell:>15}" for cell in row[1:])]))
    typer.echo(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
