"""Retrieval results and embeddings to the content of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oml.interfaces.datasets import IQueryGalleryLabeledDataset
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.pictures.report import terms
from oml_vit_ext.pictures.report.charts import Chart, histogram, line_chart
from oml_vit_ext.pictures.report.chosen_queries import chosen_queries, drawn_queries
from oml_vit_ext.pictures.report.content import Report, ShownImage, ShownQuery, ShownStage, Table
from oml_vit_ext.pictures.report.curves import Curve
from oml_vit_ext.pictures.report.measures import (
    average_precisions,
    confusions,
    cumulative_variance,
    is_right,
    n_components,
    quality,
    similarities,
)
from oml_vit_ext.pictures.report.thumbnails import SIDE, thumbnails

TOP_K: dict[str, Sequence[int]] = {"cmc": (1, 5, 10), "map": (5,)}
N_QUERIES, N_HITS = 96, 8
_SAME = 1e-6  # a smaller change of the average precision is none, on the page (page.js) too


@dataclass(frozen=True)
class About:
    """What a report says besides its results. Everything may stay empty.

    Attributes:
        title: Of the page.
        facts: Names and values below the title.
        config: Of the run, as YAML.
        curves: Of its training.
        columns: Further columns of the table of metrics: heading -> name of the stage -> text.
        terms: What the names of stages or of these columns mean.
        commands: What to do next, one line each.
        notes: Sentences at the end.
    """

    title: str = "Retrieval report"
    facts: Sequence[tuple[str, str]] = ()
    config: str = ""
    curves: Sequence[Curve] = ()
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    terms: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()


def gather(
    dataset: IQueryGalleryLabeledDataset,
    stages: Mapping[str, RetrievalResults],
    embeddings: Mapping[str, Tensor] | None = None,
    about: About | None = None,
    *,
    compared_with: str | None = None,
    top_k: Mapping[str, Sequence[int]] = TOP_K,
    n_queries: int = N_QUERIES,
    n_hits: int = N_HITS,
    side: int = SIDE,
    at_random: bool = False,
    verbose: bool = False,
) -> Report:
    """The content of a report.

    Args:
        dataset: Queries and gallery, images with labels.
        stages: Name -> results with ground truth, in the order in which the stages follow each other, e.g. a model and
            the same with re-ranking. All of them are of ``dataset``.
        embeddings: Name of a stage -> ``(images, D)``: for the spectrum and the similarities.
        about: What else the page says.
        compared_with: The stage whose hits the last one's improve or worsen; by default the one before it.
        top_k: Ranks of OML's metrics, ``{"cmc": ..., "map": ..., "precision": ...}``.
        n_queries: At most so many are shown; the figures are of all.
        n_hits: Per query and stage, at most so many are shown.
        side: Of the thumbnails, px at most.
        at_random: Queries are drawn evenly from all, and stay in this order: what a stranger should judge by. Else
            whoever wants to know what is wrong sees the worst first.
        verbose: Show a progress bar.

    Raises:
        ValueError: There are no stages, they have no ground truth, are of another number of queries, or one of them is
            not known.
    """
    about = about or About()
    check_whole("n_queries", n_queries, 1)
    check_whole("n_hits", n_hits, 1)
    _check(dataset, stages)
    if compared_with is not None and compared_with not in stages:
        raise ValueError(unknown_name("stage", compared_with, stages))
    query_ids, gallery_ids = (
        np.asarray(ids).reshape(-1) for ids in (dataset.get_query_ids(), dataset.get_gallery_ids())
    )
    labels = np.asarray(dataset.get_labels()).reshape(-1)
    names = _LabelNames(dataset, labels)
    precisions = {name: average_precisions(results, n_hits) for name, results in stages.items()}
    old = max(0, len(stages) - 2) if compared_with is None else list(stages).index(compared_with)
    ordered = list(precisions.values())
    before = ordered[old] if len(ordered) > 1 else None
    chosen = drawn_queries(len(query_ids), n_queries) if at_random else chosen_queries(ordered[-1], before, n_queries)
    shown = _shown_queries(stages, precisions, chosen, query_ids, gallery_ids, n_hits)
    n_labels = len(np.unique(labels[query_ids]))
    spectra = {name: cumulative_variance(of_stage) for name, of_stage in (embeddings or {}).items()}
    return Report(
        title=about.title,
        facts=list(about.facts),
        summary=f"{counted(len(query_ids), 'query', 'queries')} of {counted(n_labels, 'label')} searched among "
        f"{counted(len(gallery_ids), 'image')} of the gallery; "
        f"no image finds itself. A hit is right if it has the label of the query.",
        metrics=_metrics(stages, top_k, spectra, about.columns),
        terms={**terms.of_metrics(top_k, with_spectrum=bool(spectra)), **about.terms},
        stages=list(stages),
        compared=old,
        queries=shown,
        shown=_which(len(shown), len(query_ids), list(stages), old, at_random)
        + _changed(ordered[-1], before, list(stages), old),
        at_random=at_random,
        images=_images(dataset, shown, names, labels, side, verbose),
        curves=[_curve(curve) for curve in about.curves if len(curve.values) > 1],
        logged_once=[(c.name, f"{c.values[0]:.4g}") for c in about.curves if len(c.values) == 1],
        spectra=[_spectrum(spectra)] if spectra else [],
        similarities=_similarities(embeddings or {}, labels, query_ids, gallery_ids),
        confused=_confused(list(stages.values())[-1], labels, query_ids, gallery_ids, names),
        config=about.config,
        commands=list(about.commands),
        notes=list(about.notes),
    )


class _LabelNames:
    """What people call a label: ``label_name`` of the dataframe if it is there."""

    def __init__(self, dataset: Any, labels: NDArray[np.int64]) -> None:
        df = getattr(dataset, "df", None)
        self._of = (
            {} if df is None or "label_name" not in df else dict(zip(labels.tolist(), df.label_name, strict=True))
        )

    def __call__(self, label: int) -> str:
        return str(self._of.get(int(label), label))


def _check(dataset: IQueryGalleryLabeledDataset, stages: Mapping[str, RetrievalResults]) -> None:
    if not stages:
        raise ValueError("stages is empty, expected the retrieval results of at least one stage.")
    n_queries = dataset.get_query_ids().numel()
    for name, results in stages.items():
        if results.gt_ids is None:
            raise ValueError(f"The results of {name!r} have no ground truth, expected those of a data set with labels.")
        if len(results.retrieved_ids) != n_queries:
            raise ValueError(
                f"The results of {name!r} are of {counted(len(results.retrieved_ids), 'query', 'queries')}, expected "
                f"{n_queries} as in the data set."
            )


def _metrics(
    stages: Mapping[str, RetrievalResults],
    top_k: Mapping[str, Sequence[int]],
    spectra: Mapping[str, Floats],
    columns: Mapping[str, Mapping[str, str]],
) -> Table:
    found = {name: quality(results, top_k) for name, results in stages.items()}
    metrics = list(next(iter(found.values())))
    header = ["", *metrics, *([terms.DIMENSIONS] if spectra else []), *columns]
    rows = []
    for name, of_stage in found.items():
        row = [name, *(f"{of_stage[metric]:.3f}" for metric in metrics)]
        if spectra:
            cumulative = spectra.get(name)
            row.append("" if cumulative is None else f"{n_components(cumulative)} of {len(cumulative)}")
        rows.append([*row, *(texts.get(name, "") for texts in columns.values())])
    return Table(header, rows)


def _shown_queries(
    stages: Mapping[str, RetrievalResults],
    precisions: Mapping[str, Floats],
    chosen: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    gallery_ids: NDArray[np.int64],
    n_hits: int,
) -> list[ShownQuery]:
    right = {name: is_right(results, results.n_retrieved_items) for name, results in stages.items()}
    shown = []
    for query in chosen.tolist():
        of_stages = []
        for name, results in stages.items():
            ids, distances = results.retrieved_ids[query][:n_hits], results.distances[query][:n_hits]
            of_query = right[name][query]
            hits = [
                (int(gallery_ids[i]), bool(of_query[rank]), round(d, 4))
                for rank, (i, d) in enumerate(zip(ids.tolist(), distances.tolist(), strict=True))
            ]
            first = int(of_query.argmax()) + 1 if of_query.any() else 0
            of_stages.append(ShownStage(hits, round(float(precisions[name][query]), 4), first))
        shown.append(ShownQuery(int(query_ids[query]), of_stages))
    return shown


def _images(
    dataset: Any, shown: list[ShownQuery], names: _LabelNames, labels: NDArray[np.int64], side: int, verbose: bool
) -> dict[int, ShownImage]:
    wanted = {query.image for query in shown}
    wanted |= {image for query in shown for stage in query.stages for image, _, _ in stage.hits}
    uris = thumbnails(dataset, wanted, side, verbose=verbose)
    paths = dataset.df["path"].tolist() if hasattr(dataset, "df") else [""] * len(labels)
    return {i: ShownImage(uris.get(i), names(labels[i]), str(paths[i])) for i in sorted(wanted)}


def _which(n_shown: int, n_queries: int, stages: list[str], old: int, at_random: bool) -> str:
    if n_queries == 1:
        return "The one query."
    if at_random:
        of_all = f"{n_shown} of the {n_queries} queries" if n_shown < n_queries else f"All {n_queries} queries"
        return f"{of_all}, drawn at random."
    if n_shown == n_queries:
        return f"All {n_queries} queries, the worst first."
    changed = f", those that it changed most against “{stages[old]}”" if len(stages) > 1 else ""
    return (
        f"{n_shown} of the {n_queries} queries: the worst of “{stages[-1]}”{changed}, and others drawn at random. The "
        f"figures above are of all queries."
    )


def _changed(last: Floats, before: Floats | None, stages: list[str], old: int) -> str:
    """How many of all queries the last stage made better and worse."""
    if before is None or old == len(stages) - 1:
        return ""
    change = last.round(4) - before.round(4)
    better, worse = int((change > _SAME).sum()), int((change < -_SAME).sum())
    return (
        f" Of all {len(last)}, “{stages[-1]}” found more of {better} and less of {worse} than "
        f"“{stages[old]}” did, by average precision; {len(last) - better - worse} are as before."
    )


def _curve(curve: Curve) -> Chart:
    moved = f"From {curve.values[0]:.4g} to {curve.values[-1]:.4g}"
    return line_chart(
        curve.name,
        {curve.name: (curve.steps, curve.values)},
        x_label="iterations",
        text=f"{moved} at iteration {curve.steps[-1]}. {terms.of_curve(curve.name)}".strip(),
    )


def _spectrum(spectra: Mapping[str, Floats]) -> Chart:
    series = {name: (list(range(1, len(values) + 1)), values.tolist()) for name, values in spectra.items()}
    dimensions = ", ".join(f"{name}: {n_components(values)} of {len(values)}" for name, values in spectra.items())
    return line_chart(
        "Share of the variance in the first principal components",
        series,
        x_label="principal components",
        text=f"Components that carry 90 % of the variance (dashed line): {dimensions}. The further to the left a curve "
        f"rises, the fewer directions the model uses: a model that has collapsed tells little apart.",
        y_range=(0, 1),
        log_x=True,
        level=0.9,
    )


def _similarities(
    embeddings: Mapping[str, Tensor],
    labels: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    gallery_ids: NDArray[np.int64],
) -> list[Chart]:
    charts = []
    for name, of_stage in embeddings.items():
        found = similarities(of_stage, labels, query_ids, gallery_ids)
        charts.append(
            histogram(
                f"Similarity of pairs, {name}",
                found.edges.tolist(),
                {"two labels": found.negative.tolist(), "one label": found.positive.tolist()},
                x_label="cosine similarity",
                text=f"{counted(found.n_positive, 'pair')} of one label, {found.n_negative} of two labels, drawn "
                f"at random. The less the two overlap, the better a threshold on the similarity tells them apart.",
            )
        )
    return charts


def _confused(
    results: RetrievalResults,
    labels: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    gallery_ids: NDArray[np.int64],
    names: _LabelNames,
) -> Table | None:
    firsts = [int(labels[gallery_ids[ids[0]]]) if len(ids) else None for ids in results.retrieved_ids]
    found = confusions(labels[query_ids], firsts)
    if not found:
        return None
    rows = [
        [names(c.label), names(c.taken_for), str(c.count), f"{100 * c.count / c.n_queries:.0f} % of {c.n_queries}"]
        for c in found
    ]
    return Table(["Query", "First hit", "Times", "Share of the label's queries"], rows)
