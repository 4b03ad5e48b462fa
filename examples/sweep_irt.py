"""How margin and entropy weight of IRT's loss act on the bundled pictures: one short training for each pair of values.

Every run goes through OML's pipelines, as in demo.py, and leaves one row in OUTPUT/sweep.csv. Call it again to go
on: rows that are there with the same settings are not run again. At the end OUTPUT/sweep.png shows CMC@1 and the
number of dimensions that carry 90 % of the variance, averaged over the seeds.

  python examples/sweep_irt.py --margins 0.3,0.5 --entropy-weights 0,0.7 --seeds 1,2
  python examples/sweep_irt.py --margins 0.5 optimizer.args.lr=1e-4   # Hydra overrides, last
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure

from oml_vit_ext.commands.screen import quieten
from oml_vit_ext.pictures import save_figure
from tools.demo_runs import train, validate
from tools.folders import ROOT, in_folder
from tools.overrides import known_to
from tools.results_table import run_missing

PANELS = {"cmc_1": ("CMC@1", "{:.3f}"), "dims_90": ("dimensions for 90 % of the variance", "{:.0f}")}


def main() -> None:
    args = parse_arguments()
    quieten()
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        iterations = args.iterations or compose("irt/train_demo", args.overrides).iterations
        # A whole map first, then the next seed.
        grid = itertools.product(args.seeds, args.margins, args.entropy_weights)
        shared = {
            "iterations": iterations,
            "overrides": " ".join(args.overrides),
        }
        wanted = [{"margin": m, "entropy_weight": w, "seed": s, **shared} for s, m, w in grid]
        results = run_missing(
            wanted,
            output / "sweep.csv",
            output / "log.txt",
            lambda setting, folder: run(setting, args.overrides, folder),
            unit="sweep",
        )
    picture = output / "sweep.png"
    draw_heat_maps(results, f"emoji, {iterations} iterations, seeds {', '.join(map(str, args.seeds))}", picture)
    print(means(results, "cmc_1").to_string(float_format="{:.3f}".format))
    print(f"\n  all figures  {output / 'sweep.csv'}\n  heat maps    {picture}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--margins", type=numbers, default="0.1,0.3,0.5,0.7", help="values of the margin (default: %(default)s)"
    )
    parser.add_argument(
        "--entropy-weights", type=numbers, default="0,0.3,0.7,1,2", help="values of lambda (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=whole_numbers, default="42", help="one run each (default: %(default)s)")
    parser.add_argument("--iterations", type=int, help="iterations of each training (default: that of the config)")
    parser.add_argument("--output", type=Path, default=Path("outputs/sweep"), help="folder (default: %(default)s)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="changes to the config irt/train_demo, e.g. pretrained=null; paths are relative to the project's folder",
    )
    return parser.parse_intermixed_args()


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def run(setting: dict, overrides: list[str], folder: Path) -> dict:
    """Train and validate one setting in ``folder``; returns its figures."""
    started = time.perf_counter()
    criterion = [f"criterion.args.{name}={setting[name]}" for name in ("margin", "entropy_weight")]
    training = [f"iterations={setting['iterations']}", f"seed={setting['seed']}", *criterion, *overrides]
    checkpoint = train("irt_r", training, folder)
    arguments = ["irt/variant=irt_r", f"checkpoint='{checkpoint}'", *known_to("irt/validate_demo", overrides)]
    result = validate("it", arguments, folder)
    figures = {name: round(getattr(result, name), 4) for name in ("cmc_1", "cmc_10", "map_5", "dims_90")}
    return {**figures, "seconds": round(time.perf_counter() - started, 1)}


def means(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Averages over the seeds: one row per margin, one column per entropy weight."""
    return results.pivot_table(index="margin", columns="entropy_weight", values=column, aggfunc="mean")


def draw_heat_maps(results: pd.DataFrame, title: str, path: Path) -> None:
    fig = Figure(figsize=(11, 3.6), layout="constrained")
    for ax, (column, (name, number)) in zip(fig.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        values = means(results, column)
        picture = ax.imshow(values, cmap="viridis", aspect="auto")
        for (i, j), value in ((ij, values.iat[ij]) for ij in itertools.product(*map(range, values.shape))):
            bright = picture.norm(value) > 0.6
            ax.text(j, i, number.format(value), ha="center", va="center", color="black" if bright else "white")
        ax.set_xticks(range(values.shape[1]), [f"{w:g}" for w in values.columns])
        ax.set_yticks(range(values.shape[0]), [f"{m:g}" for m in values.index])
        ax.set(xlabel="entropy weight λ", ylabel="margin β", title=name)
    fig.suptitle(title, fontsize=9)
    save_figure(fig, path)


if __name__ == "__main__":
    main()
