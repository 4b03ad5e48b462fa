"""Writes the tables of ``docs/howto/beyond.md`` and ``beyond_training.md`` from ``docs/results/*.json`` alone.

A page has ``<!-- beyond: NAME -->`` and ``<!-- end -->`` round the table that the function of that name gives. Call it
after ``benchmarks/beyond.py``, ``bench_head.py``, ``bench_tokens.py`` or ``bench_k_reciprocal.py`` (``make
study-figures``); a test fails while a page is stale.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
PAGES = [DOCS / "howto/beyond.md", DOCS / "howto/beyond_training.md"]
FIGURES = {"cmc1": "CMC@1", "cmc10": "CMC@10", "map5": "mAP@5", "map20": "mAP@20"}

Row = dict[str, Any]


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(page)


def filled(text: str) -> str:
    """The page with its tables as the results give them."""
    tables = {table.__name__: table for table in TABLES}

    def replace(match: re.Match[str]) -> str:
        return f"<!-- beyond: {match[1]} -->\n\n{tables[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- beyond: (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


# --- beyond.md --------------------------------------------------------------------------------------------------------


def trained() -> str:
    """Postprocessors after training, all seeds."""
    return _postprocessors("irt_r")


def off_the_shelf() -> str:
    """The same without training."""
    return _postprocessors("off the shelf")


def grids() -> str:
    """A small object in a large picture, with both models."""
    rows = _read("beyond.json")
    names = sorted({row["method"] for row in rows if row["method"].startswith("grid")}, key=_grid_order)
    lines = []
    for model, shown in (("off the shelf", "off the shelf"), ("irt_r", "trained")):
        for name in names:
            found = [row for row in rows if row["method"] == name and row["model"] == model]
            if found:
                n, where = int(name.split()[1][:-1]), name.split(", ")[1]
                searched = f"`--grid {n}`" if n else "whole pictures"
                cells = [_spread(found, key) for key in ("cmc1", "cmc10", "map5")]
                lines.append([shown, where, searched, str(1 + n * n), *cells, str(len(found))])
    return _table(["model", "object", "searched", "embeddings per picture", "CMC@1", "CMC@10", "mAP@5", "seeds"], lines)


def k_reciprocal_cost() -> str:
    """Time and memory beside the dense algorithm."""
    lines = []
    for row in _read("k_reciprocal.json")["rows"]:
        dense = [f"{row['dense_s']:.1f} s", f"{row['dense_mb']:.0f} MB"] if "dense_s" in row else ["", ""]
        lines.append([f"{row['n']:,}".replace(",", " "), f"{row['ours_s']:.1f} s", f"{row['ours_mb']:.0f} MB", *dense])
    return _table(["n", "`k_reciprocal`", "", "dense", ""], lines)


def _postprocessors(model: str) -> str:
    rows = [row for row in _read("beyond.json") if row["model"] == model and not row["method"].startswith("grid")]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        found = [row for row in rows if row["method"] == method]
        figures = [_spread(found, key) for key in FIGURES]
        seconds = _spread(found, "seconds", 1, False)
        lines.append([_named(method), _settings(found[0]["settings"]), *figures, seconds, str(len(found))])
    return _table(["postprocessor", "settings", *FIGURES.values(), "seconds", "seeds"], lines)


def _named(method: str) -> str:
    name, *rest = method.split(", ")
    return ", ".join([name if name == "none" else f"`{name}`", *rest])


def _settings(cfg: Row) -> str:
    if cfg.get("name") == "chain":
        return "query expansion, then `k_reciprocal`, as above"
    shown = {key: value for key, value in cfg.get("args", {}).items() if key not in ("database_side", "top_n")}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _grid_order(method: str) -> tuple[str, str]:
    grid, where = method.split(", ")
    return where, grid


# --- beyond_training.md -----------------------------------------------------------------------------------------------


def heads() -> str:
    """A head beside what it stands in for."""
    rows = _read("head.json")
    pca = next(row["settings"] for row in rows if row["method"] == "pca")
    head = next(row["settings"] for row in rows if row["method"] == "head, choice")
    names = {
        "off the shelf": "off the shelf",
        "pca": f"PCA, {pca} of 384 dimensions",
        "head": f"a linear head, {_LOSSES[head['criterion']]}, {head['dims'][-1]} dimensions",
        "fine-tuning": "fine-tuning by `irt`, as many seconds as embedding and fitting the head",
    }
    lines = []
    for method, name in names.items():
        if found := [row for row in rows if row["method"] == method]:
            seconds = _spread(found, "seconds", 0, False)
            if method == "head":
                seconds = f"{_spread(found, 'embedding_seconds', 0, False)} to embed 770 photos, {seconds} to fit"
            cells = [_spread(found, key) for key in ("cmc1", "cmc10", "map5")]
            lines.append([name, *cells, "–" if method == "off the shelf" else seconds, str(len(found))])
    return _table(["", "CMC@1", "CMC@10", "mAP@5", "seconds on one core", "seeds"], lines)


def proxies() -> str:
    """ProxyAnchor with its proxies at multiples of the head's learning rate."""
    rows = _read("head.json")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if "proxies x" in row["method"]):
        found = [row for row in rows if row["method"] == method]
        held = max(row["cmc1"] for row in found[0]["tries"])
        cells = [_spread(found, key) for key in ("cmc1", "cmc10", "map5")]
        lines.append([f"× {method.split('x ')[1]}", f"{found[0]['settings']['lr']:g}", f"{held:.3f}", *cells])
    return _table(["proxies' rate", "head's rate", "CMC@1, held out", "CMC@1", "CMC@10", "mAP@5"], lines)


def prefixes() -> str:
    """CMC@1 of the first dimensions."""
    rows = _read("head.json")
    plain, nested = ([r for r in rows if r["method"] == f"first dimensions, {m}"] for m in ("irt", "matryoshka"))
    if not plain or not nested:
        return ""
    dims = list(plain[0]["prefixes"])
    kinds = {
        "`matryoshka`, first dimensions": (nested, "prefixes"),
        "without, first dimensions": (plain, "prefixes"),
        "without, PCA to as many": (plain, "pca"),
    }
    lines = [
        [name, *(_spread([{"x": row[key][d]} for row in of], "x") for d in dims)] for name, (of, key) in kinds.items()
    ]
    return _table(["dimensions", *dims], lines)


def tokens() -> str:
    """Candidates decoded, or their tokens read from disk."""
    lines = []
    for row in _read("tokens.json")["rows"]:
        kept = "bytes_per_image" in row
        name = f"`{row['tokens']}`" if kept else row["tokens"]
        cells = [f"{row['decodes_per_query']:.0f}", f"{row['seconds_per_query']:.2f}", f"{row['pairs_per_s']:.0f}"]
        cells += [f"{row['bytes_per_image']:,}".replace(",", " ")] if kept else ["–"]
        cells += [f"{row['largest_change']:f}".rstrip("0")] if kept else ["–"]
        cells += [f"{row['other_order']:.1%}" if "other_order" in row else "–"]
        lines.append([name, *cells, f"{row['cmc1']:.3f}"])
    head = ["candidates", "decoded per query", "seconds per query", "pairs per second", "bytes per image"]
    return _table([*head, "largest change of a distance", "queries with another order", "CMC@1"], lines)


_LOSSES = {"irt": "`irt`", "supcon": "SupCon", "proxy_anchor": "ProxyAnchor"}
TABLES = (trained, off_the_shelf, grids, k_reciprocal_cost, heads, proxies, prefixes, tokens)


# --- cells ------------------------------------------------------------------------------------------------------------


def _spread(rows: Sequence[Row], key: str, digits: int = 3, with_deviation: bool = True) -> str:
    """Mean ± standard deviation over seeds; the mean alone of a single row."""
    values = [row[key] for row in rows]
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2 or not with_deviation:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
