"""Trains IRT_L and IRT_R on the bundled pictures, validates both and the starting point, and shows what they find.

Everything runs through OML's pipelines with the configs ``irt/train_demo`` and ``irt/validate_demo``: what you see
here is what your own data would go through.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd
from hydra import initialize_config_module

from oml_vit_ext.common.files import replaced
from tools.demo_pictures import draw_retrieval, draw_spectrum
from tools.demo_runs import Validated, train, validate
from tools.folders import ROOT, in_folder
from tools.overrides import known_to
from tools.screen import quieten, say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for models and pictures")
    parser.add_argument("--iterations", type=int, help="iterations of each training (default: that of the config)")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/demo_data", help="folder with df.csv")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. optimizer.args.lr=1e-4 memory_size=0")
    args = parser.parse_intermixed_args()
    quieten()

    started = time.perf_counter()
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    overrides = [f"dataset_root={args.data.absolute()}", *args.overrides]
    training = overrides + ([f"iterations={args.iterations}"] if args.iterations else [])

    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        checking = known_to("irt/validate_demo", overrides)
        rows = [validate("starting point", ["irt/variant=irt_o", *checking], output)]
        for variant, name in (("irt_l", "IRT_L"), ("irt_r", "IRT_R")):
            checkpoint = train(variant, training, output / variant)
            rows.append(validate(name, [f"irt/variant={variant}", f"checkpoint='{checkpoint}'", *checking], output))

    say(f"Emoji never seen in training: {len(rows[0].retrieved)} queries, each drawing against all others")
    print(table(rows))
    write_json(rows, output / "results.json")
    df = pd.read_csv(args.data / "df.csv")
    df = df[df.split == "validation"].reset_index(drop=True)
    draw_retrieval({r.name: r.retrieved for r in rows}, df, args.data, output / "retrieval.png")
    draw_spectrum({r.name: r.embeddings for r in rows}, output / "spectrum.png")
    print(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes.")
    print(f"  query -> top 5           {output / 'retrieval.png'}")
    print(f"  how many dimensions live {output / 'spectrum.png'}")
    print(f"  the models               {output / 'irt_l'}, {output / 'irt_r'}: checkpoints/best.ckpt")


def table(rows: list[Validated]) -> str:
    frame = pd.DataFrame([figures(row) for row in rows], index=[row.name for row in rows])
    frame["dims_90"] = [f"{row.dims_90} of {row.embeddings.shape[1]}" for row in rows]
    return frame.set_axis(["CMC@1", "CMC@10", "MAP@5", "dims for 90 %"], axis=1).to_string(float_format="{:.3f}".format)


def figures(row: Validated) -> dict[str, float]:
    return {name: getattr(row, name) for name in ("cmc_1", "cmc_10", "map_5", "dims_90")}


def write_json(rows: list[Validated], path: Path) -> None:
    with replaced(path) as unfinished:
        unfinished.write_text(json.dumps({row.name: figures(row) for row in rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
