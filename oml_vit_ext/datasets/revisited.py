"""Revisited Oxford and Paris in their official folder layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oml_vit_ext.common.arrays import whole_numbers
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.common.safe_pickle import read_pickle
from oml_vit_ext.datasets.whereabouts import find_root, found_elsewhere

Box = tuple[int, int, int, int]

REVISITED = ("roxford5k", "rparis6k")
DISTRACTORS = "revisitop1m"


@dataclass(frozen=True)
class RevisitedData:
    """Queries, database images and ground truth; paths are relative to ``root``, the folder of this data set."""

    name: str
    root: Path
    query_paths: list[Path]
    query_boxes: list[Box]  # left, top, right, bottom in pixels: the part of the query image that is searched
    database_paths: list[Path]
    ground_truth: list[dict[str, Any]]  # per query: easy, hard, junk (numbers of database images), bbx

    def missing_files(self) -> list[Path]:
        """Images of the lists that are not there."""
        return [path for path in [*self.query_paths, *self.database_paths] if not (self.root / path).is_file()]


def load_revisited(root: str | Path, name: str) -> RevisitedData:
    """Read ``gnd_<name>.pkl``, without executing what else may be in a pickle file.

    Args:
        root: The folder that holds ``<name>/gnd_<name>.pkl`` and ``<name>/jpg/*.jpg``, or the folder ``<name>`` itself;
            or one up to two above. Images may lie a folder deeper, or have another spelling of their ending.
        name: ``roxford5k`` or ``rparis6k``.

    Raises:
        ValueError: ``name`` is not known, or the file is not such a ground truth.
        FileNotFoundError: The file is not there. Missing images are told by :meth:`RevisitedData.missing_files`.
    """
    if name not in REVISITED:
        raise ValueError(unknown_name("data set", name, REVISITED))
    folder = revisited_folder(find_root(Path(root), f"gnd_{name}.pkl", f"{name}/gnd_{name}.pkl"), name)
    file = folder / f"gnd_{name}.pkl"
    content = read_pickle(file)
    queries, database, truth = _checked(content, file)
    data = RevisitedData(
        name=name,
        root=folder,
        query_paths=[_image_path(image, file) for image in queries],
        query_boxes=[_box(of_query["bbx"], i, file) for i, of_query in enumerate(truth)],
        database_paths=[_image_path(image, file) for image in database],
        ground_truth=truth,
    )
    moved = found_elsewhere(folder, [path.as_posix() for path in data.missing_files()])
    asked, searched = (
        [Path(moved.get(path.as_posix(), path)) for path in paths] for paths in (data.query_paths, data.database_paths)
    )
    return replace(data, query_paths=asked, database_paths=searched)


def revisited_folder(root: str | Path, name: str) -> Path:
    """The folder of the data set ``name``: ``root/name``, or ``root`` itself if its ground truth lies there."""
    root = Path(root)
    return root if (root / f"gnd_{name}.pkl").is_file() else root / name


def distractor_paths(root: str | Path) -> list[Path]:
    """The images of +R1M relative to ``root``, the folder ``revisitop1m``, in the order of their names.

    Those that ``revisitop1m.txt`` lists if it is there, else every file below ``jpg``.

    Raises:
        FileNotFoundError: Neither is there, or there are no images.
        ValueError: The list names a file outside of ``jpg``.
    """
    root = Path(root)
    listed = root / f"{DISTRACTORS}.txt"
    if listed.is_file():
        names = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        paths = [_below_jpg(name, listed) for name in names]
    else:
        paths = sorted(path.relative_to(root) for path in (root / "jpg").rglob("*.jp*g"))
    if not paths:
        raise FileNotFoundError(f"{root} has neither {listed.name} nor images below jpg: expected the folder of +R1M.")
    return paths


def _checked(content: Any, file: Path) -> tuple[Sequence[str], Sequence[str], list[dict[str, Any]]]:
    try:
        queries, database = list(content["qimlist"]), list(content["imlist"])
        truth = [dict(of_query) for of_query in content["gnd"]]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{file} is not a ground truth of the revisited annotation ({type(error).__name__}: {error}): expected a "
            f"dict with imlist, qimlist and gnd."
        ) from None
    if len(truth) != len(queries):
        raise ValueError(
            f"{file} has {counted(len(queries), 'query', 'queries')} but ground truth for {len(truth)}: expected "
            f"as many."
        )
    for i, of_query in enumerate(truth):
        for key in ("easy", "hard", "junk", "bbx"):
            if key not in of_query:
                raise ValueError(f"{file}: the ground truth of query {i} has no {key!r}.")
        for kind in ("easy", "hard", "junk"):
            numbers = whole_numbers(of_query[kind], f"{file}: {kind} of query {i}")
            wrong = numbers[(numbers < 0) | (numbers >= len(database))]
            if numbers.ndim != 1 or len(wrong):
                found = wrong[0] if len(wrong) else f"an array of shape {numbers.shape}"
                raise ValueError(f"{file}: {kind} of query {i} holds {found}, expected 0 to {len(database) - 1}.")
    return queries, database, truth


def _image_path(name: Any, file: Path) -> Path:
    has_ending = isinstance(name, str) and name.lower().endswith((".jpg", ".jpeg"))
    return _below_jpg(name, file, "" if has_ending else ".jpg")


def _below_jpg(name: Any, file: Path, ending: str = "") -> Path:
    path = Path("jpg") / f"{name}{ending}"
    if not isinstance(name, str) or path.is_absolute() or path.drive or ".." in path.parts or "\0" in name:
        without = " without its ending" if ending else ""
        raise ValueError(f"{file} lists the image {name!r}, expected a name below jpg{without}.")
    return path


def _box(box: Any, query: int, file: Path) -> Box:
    """Rounded to whole pixels as Pillow does for the official code."""
    try:
        left, top, right, bottom = (round(float(side)) for side in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: bbx of query {query} is {box!r}, expected four numbers.") from error
    if not (left < right and top < bottom):
        raise ValueError(f"{file}: bbx of query {query} is {box!r}, expected left < right and top < bottom.")
    return max(left, 0), max(top, 0), right, bottom
