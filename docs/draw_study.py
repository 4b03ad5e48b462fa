"""Draws the figures of ``docs/study.md`` and fills in its tables and README's, from ``docs/results/study*.json`` alone.

Call it after ``benchmarks/study.py`` or ``benchmarks/study_reranking.py`` (``make study-figures``); a test fails while
the page is stale. Text between ``<!-- NAME -->`` and ``<!-- end -->`` is what the function of that name gives.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "docs" / "study.md", ROOT / "README.md", ROOT / "docs/names/samplers/nearest_pairs.md"]
FIGURES = ROOT / "docs" / "images" / "study"

NAMES = {
    "irt_o": "IRT_O, CLS token",
    "irt_o_avg": "IRT_O, mean of the patches",
    "irt_o_max": "IRT_O, maximum",
    "irt_o_gem": "IRT_O, GeM",
    "irt_l": "IRT_L",
    "irt_r": "IRT_R",
    "irt_r_pca128": "IRT_R, PCA to 128",
    "vit_triplet": "OML's triplet loss, hard triplets",
    "multi_similarity": "multi-similarity, memory (pml)",
    "supcon": "SupCon (pml)",
    "arcface": "ArcFace",
    "proxy_anchor": "ProxyAnchor (pml)",
    "dtop": "DToP's branches, plain transformer",
    "hybrid": "IRT_L, convolutions before the transformer start at random",
    "linear_head": "linear head on frozen features",
    "first_stage": "first stage alone",
    "stir": "STIR",
    "stir_fused": "STIR, fused",
    "concat_siamese": "OML's `concat_siamese`",
    "concat_siamese_fused": "OML's `concat_siamese`, fused",
}
COLOURS = {"irt_o": "#777777", "irt_l": "#c43a31", "irt_r": "#1f6fb4"}
OTHERS = ["#2a9d5c", "#e08a1e", "#7b4fa3", "#8c564b", "#17a2a2"]
TRAINED = ["irt_l", "irt_r", "vit_triplet", "multi_similarity", "supcon", "arcface", "proxy_anchor", "dtop"]
TRAINED += ["hybrid", "linear_head"]

Row = dict[str, Any]


class Study:
    """The results, and what is asked of them."""

    def __init__(self, results: Path = RESULTS) -> None:
        self.rows = _read(results / "study.json")
        self.choices = _read(results / "study_choices.json")
        self.reranking = _read(results / "study_reranking.json")
        self.pair_sampling = _read(results / "pair_sampling.json")  # of benchmarks/pair_sampling.py
        demo = results / "demo.json"  # a run's outputs/demo/results.json
        self.demo: dict[str, Row] = json.loads(demo.read_text()) if demo.is_file() else {}
        heads = [row for row in _read(results / "head.json") if row["method"] == "head"]  # of bench_head.py
        self.rows += [{**row, "method": "linear_head"} for row in heads]
        self.rows += [
            {**row, "method": "irt_r_pca128", "cmc1": row["pca"]["128"], "cmc10": None, "map5": None, "dims90": None}
            for row in self.of("irt_r")
            if "pca" in row
        ]

    def of(self, method: str, **wanted: Any) -> list[Row]:
        """The rows of a method, one for each seed."""
        found = [r for r in self.rows if r["method"] == method and wanted.items() <= r.items()]
        return sorted(found, key=lambda row: row["seed"])

    def has(self, *methods: str) -> bool:
        return all(self.of(method) for method in methods)

    def digest(self) -> str:
        """Of all that is drawn: a figure with another one is stale."""
        content = json.dumps([self.rows, self.choices, self.reranking], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def main() -> None:
    study = Study()
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, draw in figures().items():
        fig = draw(study)
        if fig is not None:
            save(fig, FIGURES / f"{name}.svg", study.digest())
    for page in PAGES:
        page.write_text(filled(page.read_text(), study))
    print(f"{len(list(FIGURES.glob('*.svg')))} figures in {FIGURES}, tables in {' and '.join(map(str, PAGES))}")


def filled(text: str, study: Study) -> str:
    """The page with its tables as the results give them."""
    tables = {table.__name__: table for table in TABLES}

    def replace(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]](study)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


# --- tables -----------------------------------------------------------------------------------------------------------


def methods(study: Study) -> str:
    """Each method at the same number of images, best mean last."""
    shown = [m for m in (*TRAINED, "irt_r_pca128") if study.of(m)]
    shown.sort(key=lambda m: _mean(study.of(m), "cmc1"))
    off_the_shelf = [m for m in ("irt_o", "irt_o_avg", "irt_o_max", "irt_o_gem") if study.of(m)]
    head = ["", "CMC@1", "CMC@10", "MAP@5", "dims for 90 %", "seconds", "seeds"]
    lines = []
    for method in [*off_the_shelf, *shown]:
        rows = study.of(method)
        cells = [spread(rows, key) for key in ("cmc1", "cmc10", "map5")]
        dims = "128 kept" if method == "irt_r_pca128" else spread(rows, "dims90", digits=0)
        lines.append([NAMES[method], *cells, dims, spread(rows, "seconds", digits=0), str(len(rows))])
    return _table(head, lines)


def first_screen(study: Study) -> str:
    """The README's table: off the shelf, trained, re-ranked."""
    rows = {
        "off the shelf (IRT_O)": study.of("irt_o"),
        "contrastive loss (IRT_L), five minutes on one core": study.of("irt_l"),
        "with the entropy regulariser (IRT_R)": study.of("irt_r"),
        "IRT_L, twice as long: it collapses": at(study.of("irt_l"), _last_step(study)),
        "IRT_R, twice as long: it holds": at(study.of("irt_r"), _last_step(study)),
    }
    lines = [[name, *(spread(of, key) for key in ("cmc1", "cmc10", "map5"))] for name, of in rows.items() if of]
    fused = study.of("stir_fused", pair_model=_chosen_pair_model(study))
    if fused and compare(fused, before(study, fused), "cmc1")[1] == "holds":
        name = f"{NAMES[fused[0]['first_stage']]} re-ranked by STIR, both opinions fused"
        lines.append([name, *(spread(fused, key) for key in ("cmc1", "cmc10", "map5"))])
    return _table(["920 photos of 46 products never seen", "CMC@1", "CMC@10", "MAP@5"], lines)


def settings(study: Study) -> str:
    """What each method's settings were chosen from, by CMC@1 on held-out training labels."""
    lines = []
    for method in dict.fromkeys(c["method"] for c in study.choices):
        tried = [c for c in study.choices if c["method"] == method]
        best = max(tried, key=lambda c: c["cmc1"])
        lines += [
            [
                NAMES[method] if c is tried[0] else "",
                ", ".join(_setting(key, value) for key, value in c["settings"].items()),
                f"**{c['cmc1']:.3f}**" if c is best else f"{c['cmc1']:.3f}",
                str(c["dims90"]),
            ]
            for c in tried
        ]
    return _table(["", "settings", "CMC@1, held out", "dims for 90 %"], lines)


def _setting(key: str, value: float | str) -> str:
    return value if isinstance(value, str) else f"{key.split('.')[-1]} {value:g}"


def long_run(study: Study) -> str:
    """IRT_L and IRT_R along 300 steps."""
    lines = []
    steps = sorted({p["step"] for m in ("irt_l", "irt_r") for r in study.of(m) for p in r["curve"]})
    for method in ("irt_l", "irt_r"):
        rows = study.of(method)
        for key, what, digits in (("cmc1", "CMC@1", 3), ("dims90", "dims for 90 %", 0)):
            cells = [spread([p for r in rows for p in r["curve"] if p["step"] == s], key, digits) for s in steps]
            lines.append([f"{NAMES[method]}, {what}", *cells])
    return _table(["step", *map(str, steps)], lines)


def weights(study: Study) -> str:
    """The regulariser's weights beside each other, as many steps and the same seed."""
    first = [r for m in ("irt_l", "irt_r", "irt_r_weight") for r in study.of(m) if r["seed"] == 1]
    rows = {r["settings"].get("criterion.args.entropy_weight", 0.0): r for r in first}
    lines = [[f"{weight:g}", f"{row['cmc1']:.3f}", str(row["dims90"])] for weight, row in sorted(rows.items())]
    return _table(["λ", "CMC@1", "dims for 90 %"], lines)


def claims(study: Study) -> str:
    """The papers' claims, each as a difference of means with its standard error."""
    lines = []
    for claim, measure in CLAIMS:
        found = measure(study)
        lines.append([claim, *(found or ("not measured yet", "–"))])
    return _table(["claim", "here", "verdict"], lines)


def peers(study: Study) -> str:
    """How far each peer is from the better of IRT_L and IRT_R."""
    if not study.has("irt_l", "irt_r"):
        return "Not measured yet."
    best = max(("irt_l", "irt_r"), key=lambda m: _mean(study.of(m), "cmc1"))
    lines = []
    for method in (m for m in TRAINED if m not in ("irt_l", "irt_r") and study.of(m)):
        text, verdict = compare(study.of(method), study.of(best), "cmc1")
        lines.append([NAMES[method], text, {"holds": "wins", "does not": "loses"}.get(verdict, verdict)])
    if not lines:
        return "The peers' rows are not measured yet; `make study` runs what is missing. Their tries so far are below."
    return _table(["peer", f"CMC@1, minus {NAMES[best]}'s", "verdict"], lines)


def reranking(study: Study) -> str:
    """All validation queries re-ranked, after the same first stages."""
    lines = []
    order = dict.fromkeys((r["method"], r["pair_model"]) for r in study.rows if r["method"] in RERANKED)
    for method, model in sorted(order, key=lambda key: (key[1] or "", RERANKED.index(key[0]))):
        rows = study.of(method, pair_model=model)
        name, cells = NAMES[method], [spread(rows, key) for key in ("cmc1", "cmc10", "map5")]
        if model is None:
            lines.append([f"{name}: {NAMES[rows[0]['first_stage']]}", *cells, "", "", "", str(len(rows))])
            continue
        gain = compare(rows, before(study, rows), "cmc1")[0]
        changed = f"{_mean(rows, 'became_right'):.0f} / {_mean(rows, 'became_wrong'):.0f}"
        cost = spread(rows, "seconds_rerank", digits=0)
        named = name if model.startswith("concat") else f"{name}, {_model(model)}"
        lines.append([named, *cells, gain, changed, cost, str(len(rows))])
    changed = "first hits that became right / wrong"
    head = ["", "CMC@1", "CMC@10", "MAP@5", "CMC@1 minus first stage", changed, "seconds for 4 600 pairs", "seeds"]
    return _table(head, lines) if lines else "Not measured yet."


def before(study: Study, rows: list[Row]) -> list[Row]:
    """The first stage that each row re-ranked: trained again, it is not the same to the last digit."""
    first = {r["seed"]: r["cmc1"] for r in study.of("first_stage")}
    return [{"seed": r["seed"], "cmc1": r.get("cmc1_first_stage", first.get(r["seed"]))} for r in rows]


def _chosen_pair_model(study: Study) -> str | None:
    """The one whose fusion gains most on held-out training labels."""
    gains = {
        r["fit"]: r["cmc1_fused"] - r["curve"]["1.0"]
        for r in study.reranking
        if r.get("fit", "").startswith("stir") and not r["fit"].endswith(("weak", "kinds"))
    }
    return max(gains, key=lambda name: gains[name], default=None)


RERANKED = ["first_stage", "stir", "stir_fused", "concat_siamese", "concat_siamese_fused"]


def fitted(study: Study) -> str:
    """What fusion was fitted to on held-out training labels."""
    lines = [
        [
            _model(r["fit"]),
            str(r["queries"]),
            f"{r['curve']['1.0']:.3f}",
            f"{r['cmc1_pair_model']:.3f}",
            f"{r['cmc1_fused']:.3f}",
            f"{r['first_stage_weight']:g}",
            f"{r['temperature']:g}",
            str(r["step"]),
        ]
        for r in study.reranking
        if "fit" in r
    ]
    head = ["pair model", "queries", "first stage", "pair model", "fused", "λ", "t", "steps"]
    return _table(head, lines) if lines else "Not measured yet."


def demo(study: Study) -> str:
    """The README's table of one run of the demo."""
    lines = [
        [
            name,
            *(f"{row[key]:.3f}" for key in ("cmc_1", "cmc_10", "map_5")),
            str(row["dims_90"]),
            f"{row['training_s']:.0f}",
        ]
        for name, row in study.demo.items()
    ]
    return _table(["", "CMC@1", "CMC@10", "MAP@5", "dims for 90 %", "seconds"], lines) if lines else "Not measured yet."


def pair_sampling(study: Study) -> str:
    """Pair models after the same first stages, trained on pairs of two samplers, on held-out training labels."""
    lines = []
    for row in sorted(study.pair_sampling, key=lambda r: (r["join_layer"], r["sampler"])):
        figures = [f"{row[key]:.3f}" for key in ("cmc1_first_stage", "cmc1_pair_model", "cmc1_fused")]
        lines.append([str(row["join_layer"]), f"`{row['sampler']}`", *figures])
    return _table(["k", "sampler", "first stage", "pair model alone", "fused"], lines)


TABLES: list[Callable[[Study], str]] = [first_screen, demo, weights, methods, settings, long_run, claims, peers]
TABLES += [reranking, fitted, pair_sampling]


# --- claims -----------------------------------------------------------------------------------------------------------

Finding = tuple[str, str]  # the figure in words, the verdict


def compare(rows: Sequence[Row], others: Sequence[Row], key: str, scale: float = 100, unit: str = "points") -> Finding:
    """Mean difference of two sets of runs, paired by seed where seeds agree; a verdict needs two standard errors."""
    by_seed = {r["seed"]: r[key] for r in others if r[key] is not None}
    common = [r for r in rows if r["seed"] in by_seed]
    if common:
        gaps = [r[key] - by_seed[r["seed"]] for r in common]
    else:
        base = statistics.fmean(by_seed.values())
        gaps = [r[key] - base for r in rows]
    mean = statistics.fmean(gaps)
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.inf
    digits = 1 if scale == 100 else 0
    text = f"{scale * mean:+.{digits}f} {unit}"
    text += f" (standard error {scale * error:.{digits}f}, {len(gaps)} seeds)" if error < math.inf else " (one seed)"
    return text, "holds" if mean > 2 * error else "does not" if mean < -2 * error else "cannot tell"


def at(rows: Sequence[Row], step: int) -> list[Row]:
    """The points of the curves at a step, as rows."""
    return [{**p, "seed": r["seed"]} for r in rows for p in r["curve"] if p["step"] == step]


def _last_step(study: Study) -> int:
    return min((max(p["step"] for p in r["curve"]) for m in ("irt_l", "irt_r") for r in study.of(m)), default=0)


def _training_helps(study: Study) -> Finding | None:
    if not study.has("irt_l"):
        return None
    return compare(study.of("irt_l"), study.of("irt_o"), "cmc1")


def _regulariser_helps(study: Study) -> Finding | None:
    return compare(study.of("irt_r"), study.of("irt_l"), "cmc1") if study.has("irt_l", "irt_r") else None


def _regulariser_helps_late(study: Study) -> Finding | None:
    if not study.has("irt_l", "irt_r"):
        return None
    step = _last_step(study)
    return compare(at(study.of("irt_r"), step), at(study.of("irt_l"), step), "cmc1")


def _loss_collapses(study: Study) -> Finding | None:
    if not study.has("irt_l"):
        return None
    rows = study.of("irt_l")
    first, last = min(p["step"] for p in rows[0]["curve"]), _last_step(study)
    text, verdict = compare(at(rows, first), at(rows, last), "dims90", 1, "dimensions lost")
    return f"{text}, step {first} to {last}", verdict


def _regulariser_spreads(study: Study) -> Finding | None:
    if not study.has("irt_l", "irt_r"):
        return None
    step = _last_step(study)
    return compare(at(study.of("irt_r"), step), at(study.of("irt_l"), step), "dims90", 1, "dimensions")


def _cls_is_best(study: Study) -> Finding | None:
    others = [r for m in ("irt_o_avg", "irt_o_max", "irt_o_gem") for r in study.of(m)]
    best = max(others, key=lambda r: r["cmc1"])
    gap = 100 * (study.of("irt_o")[0]["cmc1"] - best["cmc1"])
    return f"off the shelf, {gap:+.1f} points to {NAMES[best['method']].split(', ')[1]}", "cannot tell"


def _pca_keeps(study: Study) -> Finding | None:
    """The paper loses 0.4 (In-Shop) to 2.1 points (CUB-200)."""
    if not study.has("irt_r_pca128"):
        return None
    text, _ = compare(study.of("irt_r_pca128"), study.of("irt_r"), "cmc1")
    at_worst = [{**row, "cmc1": row["cmc1"] + 0.021} for row in study.of("irt_r_pca128")]
    return text, compare(at_worst, study.of("irt_r"), "cmc1")[1]


def _stir_helps(method: str, model: str | None = None) -> Callable[[Study], Finding | None]:
    def measure(study: Study) -> Finding | None:
        best = model or _chosen_pair_model(study)
        rows = study.of(method, pair_model=best)
        if best is None or not rows:
            return None
        text, verdict = compare(rows, before(study, rows), "cmc1")
        return f"{text}, {_model(best)}", verdict

    return measure


CLAIMS: list[tuple[str, Callable[[Study], Finding | None]]] = [
    ("IRT: training with the contrastive loss improves on the pretrained transformer", _training_helps),
    ("IRT: the contrastive loss collapses dimensions as training goes on", _loss_collapses),
    ("IRT: the entropy regulariser spreads embeddings over more dimensions, at the last step", _regulariser_spreads),
    ("IRT: with it CMC@1 is higher, at equal images (150 steps)", _regulariser_helps),
    ("IRT: with it CMC@1 is higher, at the last step", _regulariser_helps_late),
    ("IRT: the CLS token is the best pooling (one run each)", _cls_is_best),
    ("IRT: PCA to 128 costs at most 2.1 points, as on CUB-200", _pca_keeps),
    ("STIR: re-ranking improves on a trained first stage, pair model alone", _stir_helps("stir")),
    ("Ours: with fusion it does", _stir_helps("stir_fused")),
    (
        "Ours: with fusion fitted on whole kinds (decided after the row above)",
        _stir_helps("stir_fused", "stir_0_kinds"),
    ),
]


# --- figures ----------------------------------------------------------------------------------------------------------


def figures() -> dict[str, Callable[[Study], Figure | None]]:
    drawn = (curves, spectrum, similarities, seconds, sizes, pair_curves)
    return {draw.__name__: draw for draw in drawn}


def curves(study: Study) -> Figure | None:
    """CMC@1 and live dimensions against steps, one line for each seed."""
    if not study.has("irt_l", "irt_r"):
        return None
    fig, axes = _axes(2)
    for method in ("irt_l", "irt_r"):
        for i, row in enumerate(study.of(method)):
            steps = [p["step"] for p in row["curve"]]
            style = {"color": COLOURS[method], "marker": "o", "markersize": 3, "linewidth": 1.2}
            for ax, key in zip(axes, ("cmc1", "dims90"), strict=True):
                label = NAMES[method] if i == 0 else None
                ax.plot(steps, [p[key] for p in row["curve"]], label=label, **style)
    for ax, key, title in zip(axes, ("cmc1", "dims90"), ("CMC@1", "dims for 90 % of the variance"), strict=True):
        ax.axhline(study.of("irt_o")[0][key], color=COLOURS["irt_o"], linestyle=":", label="IRT_O")
        ax.set(xlabel="steps of 64 photos", ylabel=title)
    axes[0].legend(frameon=False)
    return fig


def spectrum(study: Study) -> Figure | None:
    """Share of the variance in the first principal components."""
    fig, (ax,) = _axes(1)
    for method in ("irt_o", "irt_l", "irt_r"):
        for i, row in enumerate(study.of(method)):
            values = row["spectrum"]
            label = _with_weight(study, method) if i == 0 else None
            ax.plot(range(1, len(values) + 1), values, color=COLOURS[method], linewidth=1.2, label=label)
    for row, colour in zip(study.of("irt_r_weight"), OTHERS, strict=False):
        label = f"IRT_R, λ = {row['settings']['criterion.args.entropy_weight']:g}"
        ax.plot(range(1, len(row["spectrum"]) + 1), row["spectrum"], color=colour, linewidth=1.2, label=label)
    ax.axhline(0.9, color="#999999", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="principal components", ylabel="share of the variance", ylim=(0, 1.02))
    ax.legend(frameon=False)
    return fig


def similarities(study: Study) -> Figure | None:
    """Histograms of the cosine similarities of pairs, before and after training."""
    shown = [m for m in ("irt_o", "irt_l", "irt_r") if study.of(m)]
    fig, axes = _axes(len(shown), height=2.6)
    for ax, method in zip(axes, shown, strict=True):
        counts = study.of(method)[0]["similarities"]
        for kind, colour in (("negative", "#c43a31"), ("positive", "#2a9d5c")):
            n, total = len(counts[kind]), sum(counts[kind])
            edges = [-1 + 2 * i / n for i in range(n + 1)]
            ax.stairs([c / total for c in counts[kind]], edges, fill=True, alpha=0.5, color=colour, label=kind)
        ax.set(title=NAMES[method].split(",")[0], xlabel="cosine similarity", xlim=(-0.6, 1), yticks=[])
    axes[0].legend(frameon=False)
    return fig


def seconds(study: Study) -> Figure | None:
    """CMC@1 against the seconds of training: the curves of IRT, one point for each run of the peers."""
    if not study.has("irt_l"):
        return None
    fig, (ax,) = _axes(1)
    start = study.of("irt_o")[0]["cmc1"]
    for method in ("irt_l", "irt_r"):
        for i, row in enumerate(study.of(method)):
            x, y = [0, *(p["seconds"] for p in row["curve"])], [start, *(p["cmc1"] for p in row["curve"])]
            ax.plot(x, y, color=COLOURS[method], linewidth=1.2, label=NAMES[method] if i == 0 else None)
    others = [m for m in TRAINED if m not in ("irt_l", "irt_r") and study.of(m)]
    for method, colour, marker in zip(others, OTHERS * 2, "osD^vP*", strict=False):
        rows = study.of(method)
        points = [r["seconds"] for r in rows], [r["cmc1"] for r in rows]
        ax.plot(*points, marker, color=colour, markersize=4, label=NAMES[method])
    ax.set(xlabel="seconds of training, one core", ylabel="CMC@1")
    ax.legend(frameon=False, fontsize=7)
    return fig


def sizes(study: Study) -> Figure | None:
    """CMC@1 against the size of the embedding, after PCA fitted on the training photos."""
    fig, (ax,) = _axes(1)
    for method in ("irt_o", "irt_l", "irt_r"):
        rows = study.of(method)
        if not rows:
            continue
        x = [int(n) for n in rows[0]["pca"]]
        means = [statistics.fmean(r["pca"][str(n)] for r in rows) for n in x]
        low, high = ([pick(r["pca"][str(n)] for r in rows) for n in x] for pick in (min, max))
        ax.fill_between(x, low, high, color=COLOURS[method], alpha=0.15, linewidth=0)
        ax.plot(x, means, marker="o", markersize=3, color=COLOURS[method], label=NAMES[method].split(",")[0])
    ax.set(xscale="log", xlabel="dimensions of the embedding", ylabel="CMC@1")
    ax.set_xticks([16, 32, 64, 128, 256, 384], labels=["16", "32", "64", "128", "256", "384"])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return fig


def pair_curves(study: Study) -> Figure | None:
    """The pair models' CMC@1 against steps and fusion's against λ, on held-out labels; then what λ would have given."""
    fits = [r for r in study.reranking if "fit" in r]
    if not fits:
        return None
    fig, axes = _axes(3)
    for row, colour in zip(fits, [COLOURS["irt_r"], *OTHERS], strict=False):
        steps = [p["step"] for p in row["points"]]
        style = {"color": colour, "linewidth": 1.2, "marker": "o", "markersize": 3}
        alone, fused = ([p[key] for p in row["points"]] for key in ("cmc1_pair_model", "cmc1_fused"))
        axes[0].plot(steps, fused, "-", label=_model(row["fit"]).replace("fitted ", ""), **style)
        axes[0].plot(steps, alone, "--", **style)
        axes[1].plot([float(w) for w in row["curve"]], list(row["curve"].values()), color=colour, linewidth=1.2)
        for ax in axes[:2]:
            ax.axhline(row["curve"]["1.0"], color=colour, linestyle=":", linewidth=0.8)
    for line, name in (("-", "fused"), ("--", "pair model alone"), (":", "first stage alone")):
        axes[0].plot([], [], line, color="#777777", label=name)
    axes[0].set(xlabel="steps of the pair model, 32 pairs each", ylabel="CMC@1, held out")
    axes[1].set(xlabel="λ, the first stage's weight", ylabel="CMC@1, held out")
    for row in (r for r in study.reranking if "read_off" in r):
        x, y = zip(*((float(w), cmc1 - row["curve"]["1.0"]) for w, cmc1 in row["curve"].items()), strict=True)
        axes[2].plot(
            x, [100 * gain for gain in y], linewidth=1.2, label=f"{_model(row['read_off'])}, seed {row['seed']}"
        )
    axes[2].axhline(0, color="#777777", linestyle=":", linewidth=0.8)
    axes[2].set(xlabel="λ, read off the test", ylabel="points of CMC@1 gained, test")
    axes[2].legend(frameon=False, fontsize=7)
    axes[0].legend(frameon=False, fontsize=6.5)
    return fig


def save(fig: Figure, path: Path, digest: str) -> None:
    """The same bytes for the same results: no date, no random names."""
    fig.tight_layout()
    with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        fig.savefig(path, metadata={"Date": None, "Description": f"docs/results/study*.json, {digest}"})


# --- small things -----------------------------------------------------------------------------------------------------


def spread(rows: Sequence[Row], key: str, digits: int = 3) -> str:
    """Mean ± standard deviation; the mean alone of a single row."""
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _axes(n: int, height: float = 3.2) -> tuple[Figure, Any]:
    fig = Figure(figsize=(4.2 * n if n < 3 else 9, height))
    axes = fig.subplots(1, n, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def _with_weight(study: Study, method: str) -> str:
    if method != "irt_r":
        return NAMES[method].split(",")[0]
    return f"IRT_R, λ = {study.of(method)[0]['settings']['criterion.args.entropy_weight']:g}"


def _model(name: str) -> str:
    if name.startswith("concat"):
        return NAMES["concat_siamese"]
    _, k, *rest = name.split("_")
    fits = {"weak": ", fitted after a weak first stage", "kinds": ", fitted on whole kinds"}
    return f"k = {k}" + "".join(fits[fit] for fit in rest)


def _read(file: Path) -> list[Row]:
    return json.loads(file.read_text()) if file.is_file() else []


if __name__ == "__main__":
    main()
