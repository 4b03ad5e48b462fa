"""Re-rankers side by side: quality against cost, for each join layer, and OML's re-ranker beside them.

Each row is one training through OML's pipeline (config ``stir/train_reranker_<data>``), then one pass over the
validation queries in a process of its own. Rows are written to OUTPUT/rerankers.csv; call it again to go on: rows that
are there with the same settings are not run again.

  python examples/compare_rerankers.py --join-layers 0,1,3,5 --seeds 1       # the bundled pictures
  python examples/compare_rerankers.py --join-layers 3 --seeds 1,2 --oml    # OML's model and re-ranker as well
  python examples/compare_rerankers.py --data grocery --join-layers 0,10 dataset_root=DIR first_stage_checkpoint=FILE
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from oml.datasets.images import ImageBaseDataset, get_retrieval_images_datasets
from oml.inference import inference
from oml.lightning.pipelines.train_postprocessor import postprocessor_training_pipeline
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.registry.models import get_extractor_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults

import oml_vit_ext  # noqa: F401  (the measuring process has no Hydra that would register the names)
from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.reranker_config import validation_of
from oml_vit_ext.commands.screen import quieten
from oml_vit_ext.oml_patches import read_all_upright
from oml_vit_ext.pictures import save_figure
from tools.folders import ROOT, in_folder
from tools.peak_memory import peak_memory_mb
from tools.results_table import Row, run_missing, spread


def main() -> None:
    args = parse_arguments()
    quieten()
    read_all_upright()
    output = args.output.absolute()
    models = [("stir", k) for k in args.join_layers] + ([("oml", 0)] if args.oml else [])
    shared = {"data": args.data, "overrides": " ".join(args.overrides)}
    wanted = [{"model": m, "join_layer": k, "seed": s, **shared} for s in args.seeds for m, k in models]
    with initialize_config_module("oml_vit_ext.configs", version_base=None), in_folder(ROOT):
        rows = run_missing(
            wanted,
            output / "rerankers.csv",
            output / "log.txt",
            lambda setting, folder: run(setting, args.overrides, folder),
            unit="re-rankers",
        )
    print(table(rows))
    draw_curve(rows, output / "rerankers.png")
    print(f"\n  all figures  {output / 'rerankers.csv'}\n  curve        {output / 'rerankers.png'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo", help="demo or grocery (default: %(default)s)")
    parser.add_argument(
        "--join-layers", type=whole_numbers, default="0,1,3,5", help="one training each (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=whole_numbers, default="1", help="one row each (default: %(default)s)")
    parser.add_argument("--oml", action="store_true", help="also OML's concat_siamese and pairwise_reranker")
    parser.add_argument("--output", type=Path, default=Path("outputs/rerankers"), help="folder (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser.parse_intermixed_args()


def whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def run(setting: Row, overrides: list[str], folder: Path) -> Row:
    """Train one setting in ``folder`` and measure it; returns its figures."""
    oml = setting["model"] == "oml"
    chosen = [f"join_layer={setting['join_layer']}", f"seed={setting['seed']}"]
    cfg = with_absolute_paths(compose(f"stir/train_reranker_{setting['data']}", [*overrides, *chosen]))
    if oml:
        cfg = with_parts_of_oml(cfg)
    started = time.perf_counter()
    with in_folder(folder):
        postprocessor_training_pipeline(cfg)
    training_s = time.perf_counter() - started
    checkpoint = max(folder.glob("checkpoints/best*.ckpt"), key=lambda path: path.stat().st_mtime)
    validation = OmegaConf.to_container(validation_of(cfg, checkpoint), resolve=True)
    # In a process of its own: what training left behind does not count as memory of re-ranking.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        figures = pool.apply(measure, (validation, oml))
    return {**figures, "training_s": round(training_s, 1)}


def with_parts_of_oml(cfg: DictConfig) -> DictConfig:
    """The same config with OML's pairwise model and re-ranker."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    content["postprocessor"]["name"] = "pairwise_reranker"
    arguments = content["postprocessor"]["args"]
    pairwise_model = arguments["pairwise_model"]
    pairwise_model["name"] = "concat_siamese"
    del pairwise_model["args"]["join_layer"]
    for ours in ("memory_mb", "budget", "scores_file", "fusion"):
        arguments.pop(ours, None)
    return OmegaConf.create(content)


def measure(cfg: dict[str, Any], oml: bool) -> Row:
    """First stage, then re-ranking, for all validation queries: quality, speed, memory, decodes."""
    _, dataset = get_retrieval_images_datasets(
        Path(cfg["dataset_root"]),
        transforms_train=None,
        transforms_val=get_transforms_by_cfg(cfg["transforms_val"]),
        dataframe_name=cfg["dataframe_name"],
    )
    extractor = get_extractor_by_cfg(cfg["extractor"]).eval()
    embeddings = inference(extractor, dataset, batch_size=cfg["bs_val"])
    retrieved = RetrievalResults.from_embeddings(embeddings, dataset, n_items=cfg["postprocessor"]["args"]["top_n"])
    cfg["postprocessor"]["args"]["num_workers"] = 0  # decodes are counted in this process
    if oml:
        weights = without_prefix(cfg["postprocessor"]["args"]["pairwise_model"]["args"])
    reranker = get_postprocessor_by_cfg(DictConfig(cfg["postprocessor"]))
    if oml:
        reranker.model.load_state_dict(weights)
    reranker.model.eval()

    decodes = count_decodes()
    with peak_memory_mb() as memory:
        started = time.perf_counter()
        reranked = reranker.process(retrieved, dataset)
        seconds = time.perf_counter() - started
    n_pairs = sum(len(ids) for ids in retrieved.retrieved_ids)
    return {
        **{f"first_{name}": value for name, value in quality(retrieved).items()},
        **quality(reranked),
        "pairs": n_pairs,
        "pairs_per_s": round(n_pairs / seconds, 2),
        "peak_mb": round(memory.peak),
        "decodes": len(decodes),
    }


def without_prefix(model_args: dict[str, Any]) -> dict[str, Any]:
    """The weights of a Lightning checkpoint for OML's model, whose own loading expects other names."""
    from oml_vit_ext.extractors.checkpoints import read_state_dict

    state = read_state_dict(Path(model_args.pop("weights")))
    return {name.removeprefix("model."): value for name, value in state.items()}


def quality(retrieved: RetrievalResults) -> Row:
    metrics = calc_retrieval_metrics_rr(retrieved, cmc_top_k=(1,), map_top_k=(5,), precision_top_k=(), verbose=False)
    return {"cmc_1": round(float(metrics["cmc"][1]), 4), "map_5": round(float(metrics["map"][5]), 4)}


def count_decodes() -> list[int]:
    """Every image decoded from now on adds one entry."""
    decodes: list[int] = []
    get_item = ImageBaseDataset.__getitem__

    def counting(dataset: ImageBaseDataset, item: int) -> dict[str, Any]:
        decodes.append(item)
        return get_item(dataset, item)

    ImageBaseDataset.__getitem__ = counting
    return decodes


def table(rows: pd.DataFrame) -> str:
    """One line per model: quality as mean and standard deviation over the seeds, costs as their medians."""
    first = rows.iloc[0]
    lines: dict[str, Row] = {"first stage": {"CMC@1": f"{first.first_cmc_1:.4f}", "MAP@5": f"{first.first_map_5:.4f}"}}
    for (model, k), of_model in rows.groupby(["model", "join_layer"], sort=False):
        lines["concat_siamese (OML)" if model == "oml" else f"stir, join_layer={k}"] = {
            "CMC@1": spread(of_model.cmc_1, digits=4),
            "MAP@5": spread(of_model.map_5, digits=4),
            "pairs/s": f"{of_model.pairs_per_s.median():.1f}",
            "peak MB": f"{of_model.peak_mb.median():.0f}",
            "decodes": f"{of_model.decodes.median():.0f}",
            "runs": str(len(of_model)),
        }
    return pd.DataFrame(lines.values(), index=list(lines)).fillna("").to_string()


def draw_curve(rows: pd.DataFrame, path: Path) -> None:
    """CMC@1 against pairs per second, one point per model."""
    fig = Figure(figsize=(6, 4), layout="constrained")
    ax = fig.subplots()
    for (model, k), of_model in rows.groupby(["model", "join_layer"], sort=False):
        x, y = of_model.pairs_per_s.median(), of_model.cmc_1.mean()
        ax.scatter(x, y, color="tab:gray" if model == "oml" else "tab:blue")
        ax.annotate("OML" if model == "oml" else f"k = {k}", (x, y), textcoords="offset points", xytext=(5, 5))
    ax.axhline(rows.first_cmc_1.mean(), color="tab:orange", linestyle="--", label="first stage alone")
    ax.set(xscale="log", xlabel="pairs per second", ylabel="CMC@1")
    ax.legend()
    save_figure(fig, path)


if __name__ == "__main__":
    main()
