"""``oml-vit-ext query``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oml_vit_ext.commands.option_groups import Access, ungrouped
from oml_vit_ext.commands.options import MovedRoot, SearchParams

if TYPE_CHECKING:
    from oml_vit_ext.retrieval import Hit


@ungrouped
def query(
    images: Annotated[
        list[str],
        typer.Argument(help="Image files; with --reranker, values for its config (KEY=VALUE) as well."),
    ],
    *,
    index: Annotated[
        list[str],
        typer.Option(
            "--index",
            help="Folder of the index or of its shards, or Milvus; once for each of several, or a pattern: 'index_*'.",
            show_default=False,
        ),
    ],
    k: Annotated[int, typer.Option("-k", help="Hits per query.")] = 5,
    root: MovedRoot = None,
    search_params: SearchParams = "",
    mmap: Annotated[bool, typer.Option("--mmap", help="Leave the index on disk.")] = False,
    first_dims: Annotated[
        int | None,
        typer.Option(metavar="N", help="Find a shortlist by the first N dimensions, of a model trained by matryoshka."),
    ] = None,
    shortlist: Annotated[int, typer.Option(metavar="N", help="Of --first-dims: so many are ordered by all.")] = 100,
    postprocessor: Annotated[
        str | None,
        typer.Option(help="query_expansion, k_reciprocal, chain, or {name: ..., args: ...}: what the index finds."),
    ] = None,
    rerank: Annotated[int, typer.Option(metavar="N", help="Re-rank the first N hits.")] = 0,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_CONFIG",
            help="Run of train-reranker, or a config with a postprocessor, e.g. stir/validate_reranker_sop.",
        ),
    ] = None,
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("search.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs; draw nothing.")] = False,
    access: Access = Access(),  # noqa: B008
) -> None:
    """Find the images nearest to others: a table, and a picture.

    Hits that `index --tokens` has encoded for the re-ranker are not decoded again.

    Examples:

      oml-vit-ext query cat.jpg --index photo_index

      oml-vit-ext query cat.jpg dog.jpg --index 'shard_*' -k 10 --search-params nprobe=16

      oml-vit-ext query cat.jpg --index photo_index --postprocessor "{name: query_expansion, args: {n: 3}}"

      oml-vit-ext query cat.jpg --index photo_index --rerank 20 --reranker PAIRS

      oml-vit-ext query cat.jpg --index photo_index --rerank 20 --reranker stir/validate_reranker_photos \\
        first_stage_checkpoint=FIRST/checkpoints/best.ckpt checkpoint=PAIRS/checkpoints/best.ckpt
    """
    from contextlib import ExitStack

    from oml_vit_ext.commands.index_places import opened
    from oml_vit_ext.commands.models import postprocessor_of, reranker_of
    from oml_vit_ext.common.messages import printable
    from oml_vit_ext.pictures.hits import draw_hits
    from oml_vit_ext.retrieval import rerank_hits, search_shards

    overrides = [image for image in images if "=" in image and not Path(image).exists()]
    files = [Path(image) for image in images if image not in overrides]
    if rerank == 1 or rerank < 0:
        raise ValueError(f"--rerank is {rerank}, expected at least 2 hits, or 0 for none.")
    if rerank and not reranker:
        raise ValueError(
            "--rerank needs --reranker: a run of train-reranker, or a config such as stir/validate_reranker_sop."
        )
    if reranker and not rerank:
        raise ValueError("--reranker needs --rerank: how many of the first hits it puts into a new order.")
    if overrides and not reranker:
        raise ValueError(f"{overrides[0]!r} is no image file, and without --reranker there is no config to change.")
    if not files:
        raise ValueError("No image file is given, expected at least one to search with.")
    places = _each(index)
    searches_again = postprocessor_of(postprocessor) if postprocessor else None
    with ExitStack() as stack:
        how: dict[str, Any] = {"root": root, "mmap": mmap, **access.opening}
        shards = [stack.enter_context(opened(place, **how)) for place in places]
        embedder = access.embedder_of(shards[0])
        for shard in shards:
            shard.check_model(embedder.fingerprint, "the query")
        found = search_shards(
            shards,
            embedder.embed_all(files),
            max(k, rerank),
            search_params=search_params,
            postprocessor=searches_again,
            first_dims=first_dims,
            shortlist=shortlist,
        )
        base = shards[0].root
    if reranker:
        from oml_vit_ext.commands.kept_tokens import tokens_beside

        model, transform = reranker_of(reranker, overrides, rerank, embedder.device, base)
        kept = tokens_beside(places, model.model, transform)
        found = [
            rerank_hits(q, hits, base, model, transform, tokens=kept) for q, hits in zip(files, found, strict=True)
        ]
    found = [hits[:k] for hits in found]
    if as_json:
        print(_json(files, found))
        return
    for file, hits in zip(files, found, strict=True):
        print(f"\n{printable(str(file))}\n{table(hits)}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_hits(files, found, base, picture)
    print(f"\n{picture}")


def _each(places: Sequence[str]) -> list[str]:
    """The places, patterns replaced by the folders that match, without tokens beside an index; each once."""
    import os
    from glob import glob

    from oml_vit_ext.commands.kept_tokens import ENDING
    from oml_vit_ext.retrieval.index import is_milvus

    found = []
    for place in places:
        matching = sorted(p for p in glob(place) if not p.endswith(ENDING)) if "*" in place else [place]
        if not matching:
            raise FileNotFoundError(f"--index {place!r} matches nothing, expected folders of an index.")
        found += matching
    return list({place if is_milvus(place) else os.path.abspath(place): place for place in reversed(found)}.values())[
        ::-1
    ]


def table(hits: Sequence[Hit]) -> str:
    """One line for each hit: its rank, distance and image."""
    from oml_vit_ext.common.messages import printable

    lines = [f"{'':>4} {'distance':>9}  image"]
    for rank, hit in enumerate(hits, start=1):
        extra = "".join(f"  [{value}]" for value in (hit.label, hit.crop or hit.box) if value)
        lines.append(f"{rank:>4} {hit.distance:>9.4f}  {printable(hit.path + extra)}")
    return "\n".join(lines)


def _json(files: Sequence[Path], found: Sequence[Sequence[Hit]]) -> str:
    import json

    answers: list[dict[str, Any]] = [
        {"query": str(file), "hits": [hit._asdict() for hit in hits]} for file, hits in zip(files, found, strict=True)
    ]
    return json.dumps(answers, indent=2)
