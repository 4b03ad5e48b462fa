"""The report of a run's folder: its models on its own validation images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from oml.inference.abstract import inference
from oml.utils.misc import remove_unused_kwargs

from oml_vit_ext.pictures.report.content import Report
from oml_vit_ext.pictures.report.curves import learning_curves
from oml_vit_ext.pictures.report.gather import N_HITS, N_QUERIES, TOP_K, About, gather
from oml_vit_ext.pictures.report.thumbnails import SIDE
from oml_vit_ext.runs import (
    RunFolder,
    items_for,
    read_run,
    retrieve_as_validated,
    run_extractor,
    run_reranker,
    validation_images,
)
from oml_vit_ext.runs.run_folder import CONFIG

_FIRST, _RERANKED = "first stage", "re-ranked"


def report_of_run(
    folder: Path | str,
    *,
    checkpoint: Path | str | None = None,
    reranker: Path | str | None = None,
    root: Path | str | None = None,
    n_queries: int = N_QUERIES,
    n_hits: int = N_HITS,
    side: int = SIDE,
    device: str | None = None,
    verbose: bool = False,
) -> Report:
    """Embed the validation images of a run with its model, retrieve, re-rank where there is a re-ranker, and gather.

    Args:
        folder: Of a training or a validation, of an extractor or of a re-ranker.
        checkpoint: Another one than the run's best.
        reranker: Folder of a re-ranker's run, to re-rank what the run's extractor finds.
        root: Where the run's data set is now, the folder of its dataframe, if it has moved since.
        n_queries, n_hits, side: As in ``gather``.
        device: ``None``: the GPU if there is one.
        verbose: Show progress bars.

    Raises:
        FileNotFoundError: There is no such run, or its checkpoint or data set has gone.
        ValueError, RuntimeError: Its config cannot be built, or the checkpoint does not fit it.
    """
    run = read_run(folder, checkpoint, root=root)
    second = read_run(reranker) if reranker is not None else run if run.has_reranker else None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    images = validation_images(run)
    extractor = run_extractor(run).to(device)
    batch_size = run.config.get("bs_val") or run.config.get("batch_size_inference") or 64
    embeddings = inference(extractor, images, batch_size, num_workers=run.config.get("num_workers", 0), verbose=verbose)
    embeddings = embeddings.cpu()
    top_k = _top_k(run)
    n_items = max(n_hits, *(k for ks in top_k.values() for k in ks))
    if second is None:
        stages = {_name(run): retrieve_as_validated(embeddings, images, run.config, n_items, verbose=verbose)}
    else:
        postprocessor, transform = run_reranker(second, verbose=verbose)
        top_n = items_for(postprocessor, images)
        n_items = max(n_items, top_n)
        found = retrieve_as_validated(embeddings, images, run.config, n_items, top_n=top_n, verbose=verbose)
        if hasattr(postprocessor, "model"):
            postprocessor.model.to(device)
        same = second is run
        # As OML's metric does with our change: each postprocessor gets what it takes.
        dataset = images if same else validation_images(run, transform)
        given = {"rr": found, "dataset": dataset, "embeddings": embeddings}
        reranked = postprocessor.process(**remove_unused_kwargs(given, postprocessor.process))
        stages = {_FIRST: found, _RERANKED: reranked}
    about = About(
        title=f"Report: {run.path.name}",
        facts=_facts(run, images, device),
        config=(run.path / CONFIG).read_text(encoding="utf-8"),
        curves=learning_curves(run.path),
        terms={} if second is None else _terms(postprocessor),
    )
    first = next(iter(stages))
    return gather(
        images,
        stages,
        {first: embeddings},
        about,
        top_k=top_k,
        n_queries=n_queries,
        n_hits=n_hits,
        side=side,
        verbose=verbose,
    )


def _name(run: RunFolder) -> str:
    return str(run.config.get("variant") or run.config.get("postfix") or run.config["extractor"]["name"])


def _top_k(run: RunFolder) -> dict[str, Sequence[int]]:
    """The ranks that the run was validated at, with the usual ones."""
    given = run.config.get("metric_args") or {}
    return {
        name: sorted({*given.get(f"{name}_top_k", ()), *TOP_K.get(name, ())}) for name in ("cmc", "map", "precision")
    }


def _facts(run: RunFolder, images: Any, device: str) -> list[tuple[str, str]]:
    from oml_vit_ext import __version__

    extractor, criterion = run.config["extractor"], run.config.get("criterion")
    arch, data = _find(extractor, "arch"), Path(run.config["dataset_root"])
    facts = [
        ("Model", f"{extractor['name']}{f', {arch}' if arch else ''}"),
        ("Loss", criterion["name"] if criterion else ""),
        ("Images of the validation", f"{len(images)} of {data.name}/{run.config['dataframe_name']}"),
        ("Checkpoint", "" if run.checkpoint is None else os.path.relpath(run.checkpoint, run.path)),
        ("Computed by", f"oml-vit-ext {__version__}, torch {torch.__version__}, {device}"),
    ]
    return [(name, value) for name, value in facts if value]


def _find(config: Any, key: str) -> Any:
    """The first value of this name, at any depth."""
    if not isinstance(config, Mapping):
        return None
    return config[key] if key in config else next((v for v in (_find(c, key) for c in config.values()) if v), None)


def _terms(postprocessor: Any) -> dict[str, str]:
    top_n = getattr(postprocessor, "top_n", None)
    return {
        _FIRST: "the extractor alone: hits by the distance of their embeddings",
        _RERANKED: f"the first {top_n or 'few'} hits of each query, put into the order of a model that looks at query "
        f"and hit together"
        if hasattr(postprocessor, "model")
        else f"hits after the postprocessor {type(postprocessor).__name__}",
    }
