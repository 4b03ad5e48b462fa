"""Fits the fusion of the demo's re-ranker, examples/photos/fusion.json, on training labels that its models do not see.

What the demo searches are kinds of products that training has not seen, so whole kinds of training products are held
out: each kind once, in three parts. For each part, first stage and pair model are trained on the other kinds exactly
as the demo trains them; the queries of all three parts together decide. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

from hydra import initialize_config_module

from demo import FIRST_STAGE, ITERATIONS, PAIR_ITERATIONS, SMALL_EPOCHS, reranker_configs, trained
from oml_vit_ext.commands.fit_fusion import Candidates, candidates_of, described, figures
from oml_vit_ext.commands.screen import quieten, say
from oml_vit_ext.datasets import hold_out
from oml_vit_ext.reranking import fit_fusion, save_fusion
from tools.demo_runs import train_reranker
from tools.folders import ROOT, in_folder

PARTS = 3
GALLERY = 4  # photos of each product that are searched: among all 22, the first stage hardly errs


def main() -> None:
    args = parse_arguments()
    quieten()
    data, output = args.data.absolute(), args.output.absolute()
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        parts = [held_out(part, data, args, output / f"part_{part}") for part in range(1, PARTS + 1)]
    together = Candidates(*(list(chain(*of_parts)) for of_parts in zip(*parts, strict=True)))
    fitted, n_queries = fit_fusion(*together), len(together.scores)
    print(described(fitted, n_queries))
    fitted_on = {
        "data": "kinds of training products, each held out in one of three parts",
        "command": "python examples/fit_demo_fusion.py",
        "top_n": len(together.scores[0]),
        **figures(fitted, n_queries),
    }
    save_fusion(fitted.fusion, args.save_to or data / "fusion.json", fitted_on)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_fusion"), help="folder for the models")
    parser.add_argument("--save-to", type=Path, help="file of the two numbers (default: fusion.json beside df.csv)")
    parser.add_argument("--iterations", type=int, help="as of demo.py")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as of demo.py")
    return parser.parse_intermixed_args()


def held_out(part: int, data: Path, args: argparse.Namespace, folder: Path) -> Candidates:
    """Both models as the demo trains them, without one part of the kinds: what they say of the photos of that part."""
    say(f"Part {part} of {PARTS}")
    frame = folder / "held_out.csv"
    folder.mkdir(parents=True, exist_ok=True)
    hold_out(data / "df.csv", frame, every=PARTS, by="category", part=part, gallery=GALLERY)
    overrides = [f"dataset_root='{data}'", f"dataframe_name='{frame}'", *SMALL_EPOCHS, *args.overrides]
    # As many passes over the photos that are left as the demo has over all.
    first, pairs = (args.iterations or round(n * (PARTS - 1) / PARTS) for n in (ITERATIONS, PAIR_ITERATIONS))
    checkpoint = trained(FIRST_STAGE, first, overrides, folder / FIRST_STAGE)
    training, validation = reranker_configs(checkpoint, pairs, overrides)
    validation.checkpoint = str(train_reranker(training, folder / "stir"))
    return candidates_of(validation)


if __name__ == "__main__":
    main()
