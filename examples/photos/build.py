"""Makes ``df.csv`` and ``images/`` of this folder from the public Grocery Store Dataset (MIT licence).

  git clone https://github.com/marcusklasson/GroceryStoreDataset
  python examples/photos/build.py GroceryStoreDataset

Products whose coarse class has an even number are for training, all others are never seen in training. Of each product
the photos are spread evenly over its lists: neighbours in a list are often of one moment, and nearly the same.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm.auto import tqdm

HERE = Path(__file__).parent
PER_LABEL = {"train": 22, "validation": 20}
SHORT_SIDE, QUALITY = 128, 72  # px, JPEG: keeps the folder below 8 MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="folder of the cloned repository")
    parser.add_argument("--output", type=Path, default=HERE, help="default: this folder")
    args = parser.parse_args()
    if not (args.clone / "dataset" / "classes.csv").is_file():
        parser.error(f"{args.clone} is not a clone of GroceryStoreDataset: it has no dataset/classes.csv")
    df = spread(every_photo(args.clone / "dataset"))
    shutil.rmtree(args.output / "images", ignore_errors=True)
    for source, path in zip(tqdm(df.source, desc="Photos"), df.path, strict=True):
        save_small(args.clone / "dataset" / source, args.output / path)
    df.drop(columns="source").to_csv(args.output / "df.csv", index=False)


def every_photo(dataset: Path) -> pd.DataFrame:
    """All photos of the three lists as a dataframe of OML; ``source`` is where each one is."""
    classes = pd.read_csv(dataset / "classes.csv", index_col="Class Name (str)")
    lists = ((part, (dataset / f"{part}.txt").read_text().splitlines()) for part in ("train", "val", "test"))
    photos = [(part, line.split(",")[0].strip()) for part, lines in lists for line in lines if line.strip()]
    names = [Path(source).parent.name for _, source in photos]
    of_photo = classes.loc[names]
    is_train = (of_photo["Coarse Class ID (int)"] % 2 == 0).to_numpy()
    return pd.DataFrame(
        {
            "label": of_photo["Class ID (int)"].to_numpy(),
            "path": [f"images/{Path(s).parent.name}/{part}_{Path(s).name}" for part, s in photos],
            "split": np.where(is_train, "train", "validation"),
            "is_query": np.where(is_train, None, True),
            "is_gallery": np.where(is_train, None, True),
            "category": of_photo["Coarse Class Name (str)"].to_numpy(),
            "label_name": names,
            "source": [source for _, source in photos],
        }
    ).sort_values("label", kind="stable", ignore_index=True)


def spread(df: pd.DataFrame) -> pd.DataFrame:
    """Of each label as many photos as its split has, first and last among them, evenly spread."""
    kept = [
        rows.index[np.unique(np.linspace(0, len(rows) - 1, PER_LABEL[split]).round().astype(int))]
        for (split, _), rows in df.groupby(["split", "label"])
    ]
    return df.loc[sorted(np.concatenate(kept))].reset_index(drop=True)


def save_small(source: Path, path: Path) -> None:
    with Image.open(source) as photo:
        upright = ImageOps.exif_transpose(photo).convert("RGB")
    scale = SHORT_SIDE / min(upright.size)
    width, height = (round(side * scale) for side in upright.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    upright.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
