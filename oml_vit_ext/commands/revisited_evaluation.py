"""Revisited Oxford or Paris by the official protocol, for the model of a config."""

from __future__ import annotations

import json
from pathlib import Path

from hydra.utils import to_absolute_path
from omegaconf import DictConfig, open_dict
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.common.files import replaced
from oml_vit_ext.common.messages import counted
from oml_vit_ext.extractors.multi_scale import at_scales
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.retrieval.revisited import (
    RevisitedData,
    check_model,
    distractor_paths,
    embed_into,
    evaluate_revisited_embeddings,
    load_revisited,
    n_stored,
    stored_chunks,
)

Scores = dict[str, dict[str, float]]


def evaluate(cfg: DictConfig) -> None:
    """Print the protocol's figures, and write ``revisited.json`` into the current folder."""
    cfg = with_absolute_paths(cfg)
    with open_dict(cfg):
        for key in ("distractors", "distractor_descriptors"):
            cfg[key] = None if cfg[key] is None else to_absolute_path(cfg[key])
    data = _loaded(cfg)
    embedder = _embedder_of(cfg)
    folder = _distractors(cfg, embedder)
    queries = embedder.embed_all(
        [data.root / path for path in data.query_paths],
        data.query_boxes if cfg.boxes else None,
        verbose=True,
    )
    database = embedder.embed_all([data.root / path for path in data.database_paths], verbose=True)
    scores = evaluate_revisited_embeddings(
        queries,
        database,
        data.ground_truth,
        stored_chunks(folder) if folder else (),
        cfg.kappas,
        n_distractors=n_stored(folder) if folder else 0,
        verbose=folder is not None,
    )
    n_images = len(database) + (n_stored(folder) if folder else 0)
    print(
        f"\n{cfg.benchmark}: {counted(len(queries), 'query', 'queries')}, {counted(n_images, 'image')}, "
        f"{counted(database.shape[1], 'dimension')}\n"
    )
    print(table(scores))
    _save(scores, Path("revisited.json"))


def _loaded(cfg: DictConfig) -> RevisitedData:
    data = load_revisited(cfg.dataset_root, cfg.benchmark)
    missing = data.missing_files()
    if missing:
        raise FileNotFoundError(
            f"{counted(len(missing), 'image is', 'images are')} missing below {data.root}, the first: {missing[0]}."
        )
    return data


def _embedder_of(cfg: DictConfig) -> Embedder:
    extractor = get_extractor_by_cfg(cfg.extractor)
    if cfg.average_over_scales:
        extractor = at_scales(extractor, cfg.average_over_scales)
    device = {"gpu": "cuda", None: None}.get(cfg.accelerator, cfg.accelerator)
    return Embedder(
        extractor,
        get_transforms_by_cfg(cfg.transforms_val),
        batch_size=cfg.bs_val,
        num_workers=cfg.num_workers,
        device=device,
    )


def _distractors(cfg: DictConfig, embedder: Embedder) -> str | None:
    """The folder with the embeddings of the distractors, made as far as it is not there yet."""
    folder: str | None = cfg.distractor_descriptors
    if cfg.distractors is not None:
        if folder is None:
            raise ValueError(
                "distractors is given without distractor_descriptors: expected the folder to keep them in."
            )
        paths = [Path(cfg.distractors) / path for path in distractor_paths(cfg.distractors)]
        n_broken = embed_into(folder, embedder, paths, verbose=True)
        if n_broken:
            print(f"{counted(n_broken, 'distractor')} cannot be read: left out.")
    elif folder is not None:
        check_model(folder, embedder.fingerprint)
    return folder


def table(scores: Scores) -> str:
    """In percent, one row for each level."""
    names = list(scores["medium"])
    lines = ["        " + "".join(f"{name.replace('map', 'mAP').replace('mp', 'mP'):>8}" for name in names)]
    lines += [f"{level:8}" + "".join(f"{100 * scores[level][name]:8.2f}" for name in names) for level in scores]
    return "\n".join(lines)


def _save(scores: Scores, file: Path) -> None:
    with replaced(file) as unfinished:
        unfinished.write_text(json.dumps(scores, indent=2) + "\n")
    print(f"\n{file.absolute()}")
