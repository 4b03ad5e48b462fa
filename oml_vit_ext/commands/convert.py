"""``oml-vit-ext convert``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.25


def convert(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="folders (a folder for each product), or a public data set: sop, cub, inshop, cars, sfm120k, "
            "nc_clean, gldv2_clean, gldv2_noisy, roxford5k, rparis6k.",
            show_default=False,
        ),
    ],
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the data set.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="CSV file. Default: df.csv in FOLDER, df_with_bboxes.csv with boxes.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file with other content.")] = False,
    validation_share: Annotated[
        float | None,
        typer.Option(
            help=f"folders: share of the labels that is for validation, taken evenly from the list of their names. "
            f"Default: {SHARE}, where there are no folders train and test."
        ),
    ] = None,
    train_labels: Annotated[
        int | None, typer.Option(help="folders: instead, the first N labels are for training; -1: all.")
    ] = None,
    drop_single: Annotated[
        bool | None,
        typer.Option(help="Drop training labels with one photo. Default: for inshop only, as OML's converter does."),
    ] = None,
    decode: Annotated[
        bool | None,
        typer.Option(help="Read whole photos, which finds those cut short. Default: of folders with up to 5,000."),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="With bounding boxes: cub, inshop, cars, nc_clean.")] = False,
    official_split: Annotated[
        bool, typer.Option("--official-split", help="All classes on both sides, not the papers' halves: cub, cars.")
    ] = False,
    train_on_all: Annotated[bool, typer.Option("--train-on-all", help="All 713 models to train: sfm120k.")] = False,
    exclude_labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Leave out these landmarks, one id in a line or a column landmark_id: gldv2_clean. For instance those "
            "that Revisited Oxford and Paris show.",
        ),
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Any sizes will do, and missing photos are left out.")
    ] = False,
) -> None:
    """Make the dataframe of a data set: which photo shows what, and what is for training.

    Photos that cannot be read are left out and listed in df.left_out.txt.

    Examples:

      oml-vit-ext convert folders photos                      # photos/PRODUCT/*.jpg

      oml-vit-ext convert folders photos --train-labels 100

      oml-vit-ext convert sop data/Stanford_Online_Products

      oml-vit-ext convert gldv2_clean data/gldv2 --exclude-labels overlap.txt
    """
    import sys
    import warnings

    from oml_vit_ext.datasets import convert as convert_to_frame

    warnings.showwarning = lambda message, *_, **__: print(f"Note: {message}", file=sys.stderr)
    given = {
        "boxes": boxes,
        "official_split": official_split,
        "train_on_all": train_on_all,
        "train_labels": train_labels,
        "validation_share": validation_share,
        "exclude_labels": exclude_labels,
    }
    options: dict[str, Any] = {option: value for option, value in given.items() if value not in (None, False)}
    splits_itself = name == "folders" and not {"train_labels", "validation_share"} & set(options)
    if splits_itself:
        options["validation_share"] = SHARE
    frame = convert_to_frame(
        name,
        root,
        output=output,
        check=not no_check,
        decode=(None if name == "folders" else False) if decode is None else decode,
        drop_single=drop_single,
        overwrite=overwrite,
        **options,
    )
    print(f"\n{summary(frame)}")
    if "validation_share" in options and (frame["split"] == "train").any():
        print(
            "\nWithout folders train and test, labels are split by their names: "
            f"{options['validation_share']:.0%} of them, evenly spaced, are for validation, the others for training; "
            "labels with one photo are in the gallery of validation. --validation-share, --train-labels change that."
        )
    file = output or root / ("df_with_bboxes.csv" if "x_1" in frame else "df.csv")
    print(f"\nWritten: {file}")
    if name == "folders":
        named = "" if output is None else f" dataframe_name={output.name}"
        print(f"Next:    oml-vit-ext train irt/train_photos dataset_root={root}{named}")


def summary(frame: pd.DataFrame) -> str:
    """Labels and photos of each part, and how many photos a label has."""
    import pandas as pd

    rows = {}
    for split in ("train", "validation"):
        labels = frame["label"][frame["split"] == split]
        per_label = labels.value_counts()
        rows[split] = [len(per_label), len(labels)]
        rows[split] += [int(per_label.min()), int(per_label.median()), int(per_label.max())] if len(labels) else [0] * 3
    columns = ["labels", "photos", "fewest per label", "median", "most"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()
