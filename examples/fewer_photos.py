"""A dataframe with fewer validation photos of each label, evenly spread over those there are.

Photos that stand side by side in a dataframe are often of one moment, and nearly the same: a search among all of them
is too easy to tell good models from better ones. The training rows stay. Of data with queries and galleries apart,
the kept photos are both.

  python examples/fewer_photos.py DIR/df.csv DIR/df_10.csv --per-label 10
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from oml_vit_ext.common.files import write_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataframe", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--per-label", type=int, default=10, help="default: %(default)s")
    args = parser.parse_args()
    if args.per_label < 2:
        parser.error(f"--per-label is {args.per_label}, expected at least 2: a query and what it should find")
    if not args.dataframe.is_file():
        parser.error(f"there is no file {args.dataframe}")
    fewer = thinned(pd.read_csv(args.dataframe), args.per_label)
    write_frame(fewer, args.output)
    print(f"{(fewer.split == 'validation').sum()} validation photos in {args.output}")


def thinned(df: pd.DataFrame, per_label: int) -> pd.DataFrame:
    """All training rows, and of each validation label at most ``per_label`` rows, first and last among them."""
    validation = df[df.split == "validation"]
    kept = [rows.index[_spread(len(rows), per_label)] for _, rows in validation.groupby("label")]
    chosen = df.index.isin(np.concatenate(kept)) if kept else np.zeros(len(df), dtype=bool)
    fewer = df[(df.split == "train") | chosen].copy()
    fewer.loc[fewer.split == "validation", ["is_query", "is_gallery"]] = True
    return fewer


def _spread(n: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, wanted).round().astype(int))


if __name__ == "__main__":
    main()
