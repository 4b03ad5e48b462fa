"""Draws the data's way through each paper's system into ``docs/images/way_*.svg``: boxes, arrows, nothing to install.

Call it after a change; a test fails while the files are stale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

TARGET = Path(__file__).parent / "images"
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, LINE = 158, 58, 46, 26, 12, 15  # px
FILL = {"data": "#e8f1fb", "step": "#ffffff", "loss": "#fdeee2", "result": "#e6f5ea"}


@dataclass(frozen=True)
class Way:
    """Boxes on a grid, and arrows between them.

    Attributes:
        boxes: Name -> (column, row, kind, lines of text).
        arrows: From, to, and what is written beside the arrow.
    """

    boxes: dict[str, tuple[int, float, str, str]]
    arrows: list[tuple[str, str, str]] = field(default_factory=list)


WAYS = {
    "data": Way(
        {
            "files": (0, 0.5, "data", "image files"),
            "datasets": (1, 0, "step", "datasets/|folders to dataframes"),
            "images": (1, 1, "step", "images/|files to pixels"),
            "samplers": (2, 0, "step", "samplers/|rows to batches"),
            "transforms": (2, 1, "step", "transforms/|pixels to tensors"),
            "extractors": (3, 0.5, "step", "extractors/|tensors to embeddings"),
            "losses": (4, 0, "loss", "losses/|embeddings to a scalar"),
            "retrieval": (4, 1, "step", "retrieval/|embeddings to neighbours"),
            "index": (5, 0, "result", "retrieval/index/|an index to keep"),
            "reranking": (5, 1, "step", "reranking/|a better order"),
            "revisited": (5, 2, "result", "retrieval/revisited/|a benchmark's protocol"),
            "pictures": (6, 1, "result", "pictures/|results to look at"),
        },
        [
            ("files", "datasets", ""),
            ("files", "images", ""),
            ("datasets", "samplers", ""),
            ("images", "transforms", ""),
            ("samplers", "extractors", ""),
            ("transforms", "extractors", ""),
            ("extractors", "losses", ""),
            ("extractors", "retrieval", ""),
            ("retrieval", "index", ""),
            ("retrieval", "reranking", ""),
            ("retrieval", "revisited", ""),
            ("reranking", "pictures", ""),
        ],
    ),
    "irt": Way(
        {
            "photo": (0, 1, "data", "photo|any size"),
            "crop": (1, 1, "step", "augs_irt|256 × 256, crop 224"),
            "vit": (2, 1, "step", "ViT (arch)|tokens (B, 1 + 196, 384)"),
            "pool": (3, 1, "step", "pooling: cls|z of length 1"),
            "memory": (4, 0, "data", "memory|of past batches"),
            "pairs": (5, 1, "loss", "contrastive|margin β"),
            "koleo": (5, 2, "loss", "KoLeo|nearest neighbours apart"),
            "sum": (6, 1.5, "loss", "loss|+ λ · KoLeo"),
            "search": (5, 3, "result", "nearest neighbours"),
        },
        [
            ("photo", "crop", ""),
            ("crop", "vit", ""),
            ("vit", "pool", ""),
            ("pool", "memory", ""),
            ("memory", "pairs", ""),
            ("pool", "pairs", ""),
            ("pool", "koleo", ""),
            ("pairs", "sum", ""),
            ("koleo", "sum", ""),
            ("pool", "search", ""),
        ],
    ),
    "dtop": Way(
        {
            "photo": (0, 0.5, "data", "photo|any shape"),
            "stem": (1, 0.5, "step", "CNN stem|stride 16"),
            "vit": (2, 0.5, "step", "ViT|last n_layers blocks"),
            "cls": (3, 0, "data", "CLS of each layer|n_layers × D"),
            "maps": (3, 1, "data", "patch maps|h × w × n_layers · D"),
            "global": (4, 0, "step", "global branch|FC"),
            "elm": (4, 1, "step", "1 × 1 conv, ELM|average pooling, FC"),
            "head": (5, 0.5, "step", "concatenate|dropout, FC, BN"),
            "z": (6, 0.5, "result", "embedding|embed_dim = 1536"),
        },
        [
            ("photo", "stem", ""),
            ("stem", "vit", ""),
            ("vit", "cls", ""),
            ("vit", "maps", ""),
            ("cls", "global", ""),
            ("maps", "elm", ""),
            ("global", "head", ""),
            ("elm", "head", ""),
            ("head", "z", ""),
        ],
    ),
    "stir": Way(
        {
            "query": (0, 0, "data", "query"),
            "found": (0, 1, "data", "candidate|of the first top_n"),
            "alone1": (1, 0, "step", "first k blocks|once per image"),
            "alone2": (1, 1, "step", "first k blocks|once per image"),
            "joint": (2, 0.5, "step", "blocks k … 12|tokens of both"),
            "head": (3, 0.5, "step", "CLS to head|MLP"),
            "p": (4, 0.5, "loss", "p (different)|a distance"),
            "order": (5, 0.5, "result", "new order|of the first top_n"),
        },
        [
            ("query", "alone1", ""),
            ("found", "alone2", ""),
            ("alone1", "joint", ""),
            ("alone2", "joint", ""),
            ("joint", "head", ""),
            ("head", "p", ""),
            ("p", "order", "fusion"),
        ],
    ),
}


def drawn(way: Way) -> str:
    """The SVG of a way."""
    columns = 1 + max(column for column, *_ in way.boxes.values())
    rows = 1 + max(row for _, row, *_ in way.boxes.values())
    size = (2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X, 2 * MARGIN + rows * HEIGHT + (rows - 1) * GAP_Y)
    parts = [_arrow(way.boxes[a], way.boxes[b], label) for a, b, label in way.arrows]
    parts += [_box(*box) for box in way.boxes.values()]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:g} {size[1]:g}" font-family="sans-serif">'
    marker = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#7a8794"/></marker></defs>'
    )
    return "\n".join([head, marker, *parts, "</svg>", ""])


def _place(column: int, row: float) -> tuple[float, float]:
    return MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)


def _box(column: int, row: float, kind: str, text: str) -> str:
    x, y = _place(column, row)
    lines = text.split("|")
    top = y + HEIGHT / 2 + 5 - LINE * (len(lines) - 1) / 2
    words = "".join(
        f'<text x="{x + WIDTH / 2:g}" y="{top + i * LINE:g}" text-anchor="middle" fill="#1f2933" '
        f'font-size="{13 if i == 0 else 11}"{" font-weight=" + chr(34) + "bold" + chr(34) if i == 0 else ""}>'
        f"{escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{FILL[kind]}" stroke="#7a8794"/>'
        f"{words}"
    )


def _arrow(start: tuple[int, float, str, str], end: tuple[int, float, str, str], label: str) -> str:
    (x1, y1), (x2, y2) = _place(*start[:2]), _place(*end[:2])
    points = (x1 + WIDTH, y1 + HEIGHT / 2, x2, y2 + HEIGHT / 2)
    if start[0] == end[0]:
        down = 1 if y2 > y1 else 0
        points = (x1 + WIDTH / 2, y1 + down * HEIGHT, x2 + WIDTH / 2, y2 + (1 - down) * HEIGHT)
    line = "M{:g} {:g}L{:g} {:g}".format(*points)
    note = ""
    if label:
        middle = ((points[0] + points[2]) / 2, (points[1] + points[3]) / 2 - 5)
        style = 'text-anchor="middle" font-size="10" fill="#7a8794"'
        note = f'<text x="{middle[0]:g}" y="{middle[1]:g}" {style}>{label}</text>'
    return f'<path d="{line}" stroke="#7a8794" stroke-width="1.5" fill="none" marker-end="url(#a)"/>{note}'


def main() -> None:
    for name, way in WAYS.items():
        (TARGET / f"way_{name}.svg").write_text(drawn(way))


if __name__ == "__main__":
    main()
