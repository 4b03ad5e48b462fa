"""Writes ``docs/results/zoo.json``: what timm says of each starting point. A test fails while the file is stale."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm.auto import tqdm

from oml_vit_ext.extractors.starting_points import STARTING_POINTS
from oml_vit_ext.extractors.zoo import record

TARGET = Path(__file__).parent / "results" / "zoo.json"


def main() -> None:
    TARGET.write_text(json.dumps([record(weights) for weights in tqdm(STARTING_POINTS)], indent=1) + "\n")


if __name__ == "__main__":
    main()
