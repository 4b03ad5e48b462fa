"""Build the emoji retrieval data set: one label per emoji, one drawing per emoji set.

python build.py                # downloads the pinned packs with ``npm pack``
python build.py --packs DIR    # takes them (.tgz or unpacked) from DIR
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from packs import PACKS, SIZE, VENDORS, Picture, codes_of, fetch_packs, load, render

HERE = Path(__file__).resolve().parent
SAVED_SIZE, QUALITY = 56, 65  # px, JPEG; keeps the folder below 6 MB. JPEG, because OML's prediction looks for it
MIN_DRAWINGS = 4
VALIDATION_SHARE = 0.25
MAX_IDENTICAL = 2.0  # mean absolute difference of two "identical" pictures, of 255
TONE = re.compile(r"1f3f[b-f]")
# Emoji that differ by a colour, a direction or an hour only: relatives by the END of their names.
FAMILY_ENDS = ("heart", "circle", "square", "book", "diamond", "moon", "moon-face", "arrow", "oclock", "thirty", "hand")
PERSON = re.compile(r"^(?:man|woman|person|men|women|people|boy|girl|child|old|older|mrs|mx)-(?:in-|with-|and-)?(?=.)")

Drawings = dict[tuple[str, str], Picture]  # (emoji's name, vendor) -> picture


def family(name: str) -> str:
    """Key shared by related emoji, which must lie on the same side of the split."""
    if name.endswith(("oclock", "thirty")):
        return "clock"
    for end in FAMILY_ENDS:
        if name == end or name.endswith("-" + end):
            return end.split("-")[0]
    return PERSON.sub("", name).split("-")[0]


def draw_all(packs: Path) -> tuple[Drawings, dict[str, str]]:
    """Render every emoji that enough sets have (named as noto names it); also each emoji's category."""
    noto_names = load(packs, "noto", "chars")
    codes = {vendor: codes_of(packs, vendor) for vendor in VENDORS}
    counts = Counter(code for table in codes.values() for code in table)
    wanted = sorted(c for c, n in counts.items() if n >= MIN_DRAWINGS and c in noto_names and not TONE.search(c))
    category = {n: c for c, names in load(packs, "noto", "metadata")["categories"].items() for n in names}
    drawings: Drawings = {}
    for vendor in VENDORS:
        pack = load(packs, vendor, "icons")
        for code in tqdm(wanted, desc=f"draw {vendor}"):
            if code in codes[vendor]:
                drawings[noto_names[code], vendor] = render(pack, codes[vendor][code])
    return drawings, category


def identical_groups(pictures: Picture) -> list[list[int]]:
    """Groups of (nearly) identical pictures; the mean over 16 blocks bounds the true difference from below."""
    blocks = SIZE // 4
    coarse = pictures.reshape(len(pictures), 4, blocks, 4, blocks, 3).mean(axis=(2, 4), dtype=np.float32)
    coarse = coarse.reshape(len(pictures), -1)
    parent = list(range(len(pictures)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i in tqdm(range(len(pictures) - 1), desc="compare"):
        near = np.flatnonzero(np.abs(coarse[i + 1 :] - coarse[i]).mean(axis=1) < MAX_IDENTICAL) + i + 1
        if len(near):
            gaps = np.abs(pictures[near].astype(np.int16) - pictures[i]).mean(axis=(1, 2, 3))
            for j in near[gaps < MAX_IDENTICAL]:
                parent[root(int(j))] = root(i)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(pictures)):
        groups[root(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def drop_identical(drawings: Drawings) -> Drawings:
    """Of identical pictures keep one within a label, none across labels: the label would be a coin toss."""
    keys = list(drawings)
    dropped: set[tuple[str, str]] = set()
    within = across = 0
    for group in identical_groups(np.stack([drawings[key] for key in keys])):
        members = [keys[i] for i in group]
        if len({name for name, _ in members}) > 1:
            across += 1
            dropped.update(members)
        else:
            within += 1
            dropped.update(members[1:])
    print(f"identical pictures: {within} groups within a label, {across} across labels, {len(dropped)} dropped")
    return {key: picture for key, picture in drawings.items() if key not in dropped}


def keep_rich(drawings: Drawings) -> Drawings:
    """Emoji with enough drawings."""
    counts = Counter(name for name, _ in drawings)
    return {key: drawings[key] for key in sorted(drawings) if counts[key[0]] >= MIN_DRAWINGS}


def validation_names(names: list[str]) -> set[str]:
    """Whole families, in the order of their hashes, until the validation share is reached."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in names:
        families[family(name)].append(name)
    chosen: set[str] = set()
    for key in sorted(families, key=lambda k: hashlib.sha256(k.encode()).hexdigest()):
        if len(chosen) + len(families[key]) <= VALIDATION_SHARE * len(names):
            chosen.update(families[key])
    return chosen


def table(drawings: Drawings, category: dict[str, str]) -> pd.DataFrame:
    """The dataframe OML reads: every validation drawing is both a query and a gallery item."""
    names = sorted({name for name, _ in drawings})
    labels, validation = {name: i for i, name in enumerate(names)}, validation_names(names)
    rows = [
        {
            "label": labels[name],
            "path": f"images/{vendor}/{name}.jpg",
            "split": "validation" if name in validation else "train",
            "is_query": True if name in validation else None,
            "is_gallery": True if name in validation else None,
            "category": category.get(name, family(name)),
            "label_name": name,
            "vendor": vendor,
        }
        for name, vendor in drawings
    ]
    return pd.DataFrame(rows)


def write(drawings: Drawings, df: pd.DataFrame, target: Path) -> None:
    """Write the pictures (each read back with both readers that OML offers) and ``df.csv``, all or nothing."""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target) as temporary:
        work = Path(temporary)
        for vendor, name, relative in tqdm(df[["vendor", "label_name", "path"]].values, desc="write"):
            path = work / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(drawings[name, vendor]).resize((SAVED_SIZE, SAVED_SIZE), Image.Resampling.LANCZOS)
            picture.save(path, quality=QUALITY, optimize=True)
            seen = cv2.imread(str(path))
            with Image.open(path) as image:
                if seen is None or seen.shape != (SAVED_SIZE, SAVED_SIZE, 3) or image.size != (SAVED_SIZE, SAVED_SIZE):
                    raise RuntimeError(f"unreadable picture: {relative}")
        df.to_csv(work / "df.csv", index=False)
        if (target / "images").exists():  # leaves with the temporary folder
            (target / "images").rename(work / "old")
        (work / "images").rename(target / "images")
        (work / "df.csv").replace(target / "df.csv")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, help="folder with the packs, as .tgz files or unpacked")
    parser.add_argument("--out", type=Path, default=HERE, help="where images/ and df.csv go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        drawings, category = draw_all(fetch_packs(args.packs, Path(temporary)))
    drawings = keep_rich(drop_identical(drawings))
    df = table(drawings, category)
    write(drawings, df, args.out)
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file()) / 1e6
    print(f"{df.label.nunique()} emoji, {len(df)} drawings of {', '.join(PACKS)}; folder: {size:.2f} MB")
    print(df.groupby(["split", "vendor"]).size().unstack(), df.groupby("split").label.nunique(), sep="\n")


if __name__ == "__main__":
    main()
