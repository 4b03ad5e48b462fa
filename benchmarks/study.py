"""The study of docs/study.md: the papers' methods and their peers on the bundled photos, with equal budgets.

  python benchmarks/study.py --weights FILE                                     # everything that is missing
  python benchmarks/study.py --weights FILE --methods irt_l,irt_r --seeds 1     # a part of it

1. Settings. Each method's learning rate and the like are chosen among three tries (``configs/study/tries.yaml``), by
   CMC@1 on a third of the *training* labels, held out; RESULTS/study_choices.json keeps the tries.
2. Rows. With its settings each method is trained on all training labels, once for each seed, and validated on labels
   never seen. RESULTS/study.json gets a row as soon as it is finished; what is there is not run again, so the
   study can be stopped and called again, and two calls can share the work.

``irt_l`` and ``irt_r`` go on for twice as long, validated every ``--every`` iterations, which is the curve of their
row; their other figures are those after ``--iterations``, as for all others.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from oml.datasets.images import get_retrieval_images_datasets
from oml.inference import inference
from oml.lightning.pipelines.parser import parse_sampler_from_config
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from oml.utils.misc import set_global_seed
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

import oml_vit_ext  # noqa: F401  (registers the names)
from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.pca import fit_pca

ROOT = Path(__file__).parents[1]
LONG = ("irt_l", "irt_r")  # trained twice as long, for the curve
POOLINGS = ("cls", "avg", "max", "gem")
PCA_DIMS = (16, 32, 64, 128, 256, 384)
WEIGHTS = (0.7, 12.0)  # of the regulariser, beside the chosen one: for the figure of spectra, one seed each

Row = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    tries = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/study/tries.yaml"))
    known = ["irt_o", *tries, "irt_r_weight"]
    methods = args.methods or known
    if unknown := [m for m in methods if m not in known]:
        raise SystemExit(unknown_name("method", unknown[0], known))
    fixed = [f"dataset_root={args.data.absolute()}", f"pretrained={args.weights}", f"iterations={args.iterations}"]
    fixed += args.overrides
    rows, choices = args.results / "study.json", args.results / "study_choices.json"
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        if "irt_o" in methods:
            for pooling in POOLINGS:
                key = {"method": "irt_o" if pooling == "cls" else f"irt_o_{pooling}", "seed": 0}
                if missing(rows, key):
                    add(rows, {**key, **off_the_shelf(compose("study/train", fixed), pooling)})
        trained = [m for m in methods if m in tries]
        for method in trained:
            of_method = [f"study/method={method}", *fixed]
            for number, settings in enumerate(tries[method]):
                key = {"method": method, "try": number}
                if missing(choices, key):
                    add(choices, {**key, "settings": settings, **one_try(of_method, settings, args)})
        for seed in args.seeds:
            for method in trained:
                key = {"method": method, "seed": seed}
                if missing(rows, key):
                    settings = chosen(choices, method)
                    add(rows, {**key, "settings": settings, **one_row(method, seed, settings, fixed, args)})
        for weight in WEIGHTS if "irt_r_weight" in methods else ():
            key = {"method": "irt_r_weight", "entropy_weight": weight, "seed": args.seeds[0]}
            if missing(rows, key):
                settings = {**chosen(choices, "irt_r"), "criterion.args.entropy_weight": weight}
                row = one_row("irt_r", args.seeds[0], settings, fixed, args, kept_as=f"irt_r_weight_{weight:g}")
                add(rows, {**key, "settings": settings, **row})
    print(pd.DataFrame(read(rows)).drop(columns=["curve", "spectrum", "similarities", "settings"], errors="ignore"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a file, or a timm tag: vit_small_patch14_dinov2.lvd142m")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/photos", help="folder with df.csv")
    parser.add_argument("--methods", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--iterations", type=int, default=150, help="of each row (default: %(default)s)")
    parser.add_argument("--try-iterations", type=int, default=60, help="of each try (default: %(default)s)")
    parser.add_argument("--every", type=int, default=50, help="iterations between two points of a curve")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results", help="folder (default: docs/results)")
    parser.add_argument("--models", type=Path, default=ROOT / "outputs/study", help="folder (default: outputs/study)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config study/train")
    return parser.parse_intermixed_args()


def one_try(of_method: list[str], settings: Row, args: argparse.Namespace) -> Row:
    """Train on two thirds of the training labels, and search among the other third."""
    df = held_out(pd.read_csv(args.data / "df.csv"))
    frame = args.results / ".study_choice.csv"
    with replaced(frame) as unfinished:
        df.to_csv(unfinished, index=False)
    cfg = compose("study/train", [*of_method, *overrides(settings), f"dataframe_name={frame.absolute()}"])
    extractor, _, seconds = last(train(cfg, number_of_classes(df), args.try_iterations, args.try_iterations))
    return {**figures(extractor, cfg), "seconds": seconds, "images": args.try_iterations * batch_size(cfg)}


def one_row(
    method: str, seed: int, settings: Row, fixed: list[str], args: argparse.Namespace, kept_as: str | None = None
) -> Row:
    """Train on all training labels; the figures are those after ``args.iterations``. ``kept_as``: no long run."""
    cfg = compose("study/train", [f"study/method={method}", *fixed, *overrides(settings), f"seed={seed}"])
    n_classes = number_of_classes(pd.read_csv(args.data / "df.csv"))
    is_long = method in LONG and kept_as is None
    total, every = (2 * args.iterations, args.every) if is_long else (args.iterations, args.iterations)
    row: Row = {}
    curve = []
    for extractor, step, seconds in train(cfg, n_classes, total, every):
        if step == args.iterations:
            keep(extractor, args.models / f"{kept_as or method}_seed{seed}.ckpt")
            row = {
                **figures(extractor, cfg, in_full=True),
                "seconds": seconds,
                "images": step * batch_size(cfg),
            }
            found = row
        else:
            found = figures(extractor, cfg)
        curve.append({"step": step, **{k: found[k] for k in ("cmc1", "cmc10", "map5", "dims90")}, "seconds": seconds})
    return {**row, "curve": curve} if is_long else row


def keep(extractor: Any, file: Path) -> None:
    """Write the weights as a checkpoint of OML's training does, for the rows that go on from them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as unfinished:
        torch.save(
            {"state_dict": {f"model.{name}": value for name, value in extractor.state_dict().items()}}, unfinished
        )


def off_the_shelf(cfg: DictConfig, pooling: str) -> Row:
    cfg.extractor.args.pooling = pooling
    set_global_seed(0)
    extractor = get_extractor_by_cfg(cfg.extractor).eval()
    return {**figures(extractor, cfg, in_full=True), "seconds": 0.0, "images": 0}


def train(cfg: DictConfig, num_classes: int, total: int, every: int) -> Iterator[tuple[Any, int, float]]:
    """Yield extractor, iteration and training seconds every ``every`` iterations, up to ``total``.

    The seconds are those of the processor divided by the threads: what an idle machine takes, whatever else runs here.
    """
    set_global_seed(cfg.seed)
    cfg.num_classes = num_classes
    device = torch.device("cuda" if torch.cuda.is_available() and cfg.accelerator != "cpu" else "cpu")
    content: Any = {part: OmegaConf.to_container(cfg[part], resolve=True) for part in PARTS}
    data, _ = datasets(cfg)
    extractor = get_extractor_by_cfg(content["extractor"]).to(device)
    if "transformer" in cfg:  # trained, for an extractor with a stem of its own
        put_behind_stem(extractor.backbone, IRTExtractor(**cfg.transformer).backbone)
    # Without categories, which OML's pipelines hand over too: ArcFace reads them for label smoothing alone, which is
    # off, and fails over labels that are held out.
    criterion = get_criterion_by_cfg(content["criterion"]).to(device)
    parameters = [
        {"params": extractor.parameters(), "lr": cfg.optimizer.args.lr},
        {"params": criterion.parameters(), "lr": cfg.criterion_lr},
    ]
    optimizer = get_optimizer_by_cfg(content["optimizer"], params=parameters)
    loader = DataLoader(data, batch_sampler=parse_sampler_from_config(content, data), num_workers=cfg.num_workers)
    batches = endless(loader)
    seconds = 0.0
    for first in range(0, total, every):
        started = time.process_time()
        extractor.train()
        for _ in tqdm(
            range(first, first + every), desc=f"{content['criterion']['name']}, seed {cfg.seed}", mininterval=10
        ):
            batch = next(batches)
            with torch.autocast(device.type, torch.bfloat16, enabled=cfg.precision == "bf16"):
                features = extractor(batch[data.input_tensors_key].to(device))
            loss = criterion(features.float(), batch[data.labels_key].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds += (time.process_time() - started) / torch.get_num_threads()
        yield extractor.eval(), first + every, round(seconds, 1)


def put_behind_stem(hybrid: Any, trained: Any) -> None:
    """Copy all of a trained transformer but its patch projection into one with convolutions in that place."""
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("patch_embed.")}
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"], hybrid.patch_embed.grid_size, num_prefix_tokens=trained.num_prefix_tokens
    )
    left = hybrid.load_state_dict(state, strict=False)
    if left.unexpected_keys or not all(name.startswith("patch_embed.") for name in left.missing_keys):
        raise SystemExit(f"The transformers differ: {left}")


PARTS = ("extractor", "criterion", "optimizer", "sampler")


def figures(extractor: Any, cfg: DictConfig, *, in_full: bool = False) -> Row:
    """Retrieval among the validation photos; ``in_full``: what the figures of the study need, too."""
    train_data, data = datasets(cfg, training=False)
    embeddings = inference(extractor, data, batch_size=cfg.bs_val, num_workers=cfg.num_workers)
    row = {**quality(embeddings, data), "dims90": dims90(embeddings)}
    if not in_full:
        return row
    of_train = inference(extractor, train_data, batch_size=cfg.bs_val, num_workers=cfg.num_workers)
    pca = fit_pca(of_train, min(of_train.shape))
    projected = (embeddings - pca.mean) @ pca.components.T
    return {
        **row,
        "pca": {
            str(n): quality(torch.nn.functional.normalize(projected[:, :n], dim=1), data)["cmc1"]
            for n in PCA_DIMS
            if n <= projected.shape[1]
        },
        "spectrum": [round(share, 4) for share in cumulative_energy(embeddings).tolist()],
        "similarities": similarities(embeddings, torch.as_tensor(data.get_labels())),
    }


def quality(embeddings: Tensor, data: Any) -> Row:
    rr = RetrievalResults.from_embeddings(embeddings, data, n_items=10)
    found = calc_retrieval_metrics_rr(rr, cmc_top_k=(1, 10), map_top_k=(5,), precision_top_k=(), verbose=False)
    values = {"cmc1": found["cmc"][1], "cmc10": found["cmc"][10], "map5": found["map"][5]}
    return {name: round(float(value), 4) for name, value in values.items()}


def dims90(embeddings: Tensor) -> int:
    """How many principal components carry 90 % of the variance."""
    return int((cumulative_energy(embeddings) < 0.9).sum()) + 1


def cumulative_energy(embeddings: Tensor) -> Tensor:
    variances = torch.linalg.svdvals(embeddings.double() - embeddings.double().mean(dim=0)) ** 2
    return variances.cumsum(0) / variances.sum()


def similarities(embeddings: Tensor, labels: Tensor) -> Row:
    """Histograms of the cosine similarities of pairs of one label and of two, in 50 bins from -1 to 1."""
    s = embeddings @ embeddings.T
    upper = torch.ones_like(s, dtype=torch.bool).triu(1)
    same = labels[:, None] == labels[None, :]
    return {
        name: torch.histc(s[mask & upper], bins=50, min=-1, max=1).int().tolist()
        for name, mask in (("positive", same), ("negative", ~same))
    }


def datasets(cfg: DictConfig, *, training: bool = True) -> tuple[Any, Any]:
    transform = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_val, resolve=True))
    of_training = get_transforms_by_cfg(OmegaConf.to_container(cfg.transforms_train, resolve=True))
    return get_retrieval_images_datasets(
        Path(cfg.dataset_root), of_training if training else transform, transform, dataframe_name=cfg.dataframe_name
    )


def held_out(df: pd.DataFrame, third: int = 0, by: str = "label") -> pd.DataFrame:
    """The training rows, every third label of them for validation, or every third category."""
    df = df[df.split == "train"].copy()
    validation = df[by].isin(sorted(df[by].unique())[third::3])
    df.loc[validation, "split"] = "validation"
    for column in ("is_query", "is_gallery"):
        df[column] = df[column].astype(object)
        df.loc[validation, column] = True
    return df


def number_of_classes(df: pd.DataFrame) -> int:
    """What a loss with class centres needs: OML's labels are not renumbered."""
    return int(df.label[df.split == "train"].max()) + 1


def batch_size(cfg: DictConfig) -> int:
    return int(cfg.sampler.args.n_labels * cfg.sampler.args.n_instances)


def overrides(settings: Row) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def chosen(choices: Path, method: str) -> Row:
    return max((row for row in read(choices) if row["method"] == method), key=lambda row: row["cmc1"])["settings"]


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def last(results: Iterator[Any]) -> Any:
    *_, final = results
    return final


def read(file: Path) -> list[Row]:
    return json.loads(file.read_text()) if file.is_file() else []


def missing(file: Path, key: Row) -> bool:
    return not any(key.items() <= row.items() for row in read(file))


def add(file: Path, row: Row) -> None:
    with FileLock(file.with_name(f".{file.name}.lock")):
        rows = [*read(file), row]
        with replaced(file) as unfinished:
            unfinished.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    main()
