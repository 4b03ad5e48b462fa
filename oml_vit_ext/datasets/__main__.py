"""``python -m oml_vit_ext.datasets``: public data sets to dataframes of OML."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from oml_vit_ext.datasets.convert import DATASETS, convert
from oml_vit_ext.datasets.held_out import hold_out
from oml_vit_ext.datasets.join import join
from oml_vit_ext.datasets.listing import counts_of


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"Note: {message}", file=sys.stderr)
    try:
        return int(args.run(args))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
    except (LookupError, TypeError, AttributeError, OverflowError, NotImplementedError, MemoryError) as error:
        where = getattr(args, "root", None) or f"{args.train} or {args.validation}"
        what = f"{type(error).__name__}: {error}"
        print(f"Error: {where} cannot be read, are its annotations damaged? ({what})", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m oml_vit_ext.datasets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("convert", help="write the dataframe of a data set", description=convert.__doc__)
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.description = "Writes df.csv into the folder of a data set.\n\n" + "\n".join(
        f"  {name:12} {(function.__doc__ or '').splitlines()[0]}" for name, function in DATASETS.items()
    )
    one.add_argument("name", choices=DATASETS, metavar="NAME", help="one of the names above")
    one.add_argument("root", type=_path, metavar="ROOT", help="folder of the data set")
    one.add_argument("--output", type=_path, help="CSV file; default: df.csv in ROOT, df_with_bboxes.csv with boxes")
    one.add_argument("--no-check", action="store_true", help="any sizes will do, and missing images are left out")
    one.add_argument("--decode", action="store_true", help="read whole images, not only headers")
    one.add_argument(
        "--drop-single",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="drop training labels with one image; default: for inshop only, as OML's converter does",
    )
    one.add_argument("--boxes", action="store_true", help="with bounding boxes: cub, inshop, cars, nc_clean")
    one.add_argument(
        "--official-split", action="store_true", help="all classes on both sides, not the papers' halves: cub, cars"
    )
    one.add_argument("--train-on-all", action="store_true", help="all 713 models in the training set: sfm120k")
    one.add_argument("--train-labels", type=int, help="the first N classes are for training, -1: all: folders")
    one.add_argument("--exclude-labels", type=_path, help="file of landmark ids that are left out: gldv2_clean")
    one.add_argument("--validation-share", type=float, help="this share of the classes is for validation: folders")
    one.add_argument("--overwrite", action="store_true", help="replace a dataframe that is there with other content")
    one.set_defaults(run=_convert)

    two = commands.add_parser("join", help="training rows of one dataframe, validation rows of another")
    two.add_argument("--train", type=_path, required=True, help="dataframe with the training rows")
    two.add_argument("--validation", type=_path, required=True, help="dataframe with the validation rows")
    two.add_argument("--output", type=_path, required=True, help="CSV file in a folder above both data sets")
    two.set_defaults(run=_join)

    three = commands.add_parser("hold-out", help="the training labels alone, some of them for validation")
    three.add_argument("dataframe", type=_path, metavar="CSV", help="dataframe of a data set")
    three.add_argument("--output", type=_path, required=True, help="CSV file in the same folder")
    three.add_argument("--every", type=int, default=3, help="one of so many labels is held out (default: %(default)s)")
    three.add_argument("--by", default="label", metavar="COLUMN", help="category: whole kinds are held out")
    three.add_argument("--part", type=int, metavar="N", help="which of the parts, from 1 (default: the last)")
    three.add_argument("--gallery", type=int, metavar="N", help="images of each label that are searched (default: all)")
    three.set_defaults(run=_hold_out)
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _convert(args: argparse.Namespace) -> int:
    names = ("boxes", "official_split", "train_on_all", "train_labels", "validation_share", "exclude_labels")
    given = {name: getattr(args, name) for name in names}
    frame = convert(
        args.name,
        args.root,
        output=args.output,
        check=not args.no_check,
        decode=args.decode,
        drop_single=args.drop_single,
        overwrite=args.overwrite,
        **{name: value for name, value in given.items() if value not in (None, False)},
    )
    print(f"{args.name}: {counts_of(frame)}")
    return 0


def _join(args: argparse.Namespace) -> int:
    frame = join(args.train, args.validation, args.output)
    print(f"{args.output}: {counts_of(frame)}")
    return 0


def _hold_out(args: argparse.Namespace) -> int:
    frame = hold_out(args.dataframe, args.output, args.every, args.by, part=args.part, gallery=args.gallery)
    print(f"{args.output}: {counts_of(frame)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
