"""Draws the README's picture: what a transformer finds off the shelf, and after the study's training.

  python docs/draw_photos.py     # after benchmarks/study.py, whose first IRT_L it takes

The queries are of products taken evenly from their list: no good ones are picked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from oml.registry.models import get_extractor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults

from oml_vit_ext.commands.retrieved_images import RetrievedImages, right_ones, spread
from oml_vit_ext.pictures import NEUTRAL, RIGHT, WRONG, Tile, draw_grid

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from tools.folders import in_folder  # noqa: E402

N_QUERIES = 6
TOP = 5  # hits of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "outputs/study/irt_l_seed1.ckpt")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images/photos.jpg")
    args = parser.parse_args()
    checkpoint = f"checkpoint='{args.checkpoint.absolute()}'"
    runs = {"off the shelf": ["irt/variant=irt_o"], "trained": ["irt/variant=irt_l", checkpoint]}
    found = {}
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        for name, overrides in runs.items():
            cfg = compose("irt/validate_photos", [*overrides, "num_workers=0"])
            images = RetrievedImages(cfg)
            results = images.retrieve(get_extractor_by_cfg(cfg.extractor).eval(), n_items=10)
            right, n = sum(first_is_right(results)), len(results.retrieved_ids)
            found[f"{name}\n{right} of {n} right"] = results  # the first hits
        draw_before_and_after(images, found, evenly(images, N_QUERIES), args.output.absolute())
    print(args.output)


def draw_before_and_after(
    images: RetrievedImages,
    results: dict[str, RetrievalResults],
    queries: dict[int, str],
    path: Path,
) -> None:
    """One query per row, and what each of two models retrieves for it; green: the query's product, red: another.

    Args:
        images: The validation photos.
        results: What is written above the hits -> the hits, for two models.
        queries: Number of a query -> what is written beside it.
        path: Where the picture goes.
    """
    rows: list[list[Tile | None]] = []
    for query, label in queries.items():
        row: list[Tile | None] = []
        for result in results.values():
            ids = images.ids(result, query, TOP)
            if not row:
                row.append(Tile(images.picture(ids[0]), NEUTRAL, label=label))
            right = right_ones(result, query)[:TOP].tolist()
            hits = [Tile(images.picture(i), RIGHT if r else WRONG) for i, r in zip(ids[1:], right, strict=True)]
            row += [None, *hits, *[None] * (TOP - len(hits))]
        rows.append(row)
    columns = (2 + TOP // 2 + i * (TOP + 1) for i in range(len(results)))
    draw_grid(rows, path, {0: "query", **dict(zip(columns, results, strict=True))})


def evenly(images: RetrievedImages, n: int) -> dict[int, str]:
    """Queries of products that lie evenly over all of them, each time another of their photos, with their names."""
    df = images.dataset.df.reset_index(drop=True)
    of_label = [group.index.tolist() for _, group in df[df.is_query.astype(bool)].groupby("label")]
    chosen = [rows[(3 * i) % len(rows)] for i, rows in enumerate(spread(of_label, n))]
    position = {int(row): q for q, row in enumerate(images.dataset.get_query_ids().reshape(-1))}
    return {position[row]: df.label_name[row].replace("-", " ")[:20] for row in chosen}


def first_is_right(results: RetrievalResults) -> list[bool]:
    return [bool(right_ones(results, q)[:1].any()) for q in range(len(results.retrieved_ids))]


if __name__ == "__main__":
    main()
