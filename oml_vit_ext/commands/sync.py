"""``oml-vit-ext sync``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oml_vit_ext.commands.option_groups import Access, Cluster, ungrouped
from oml_vit_ext.commands.options import MovedRoot, SaveEvery, Shard


@ungrouped
def sync(
    images: Annotated[
        Path | None, typer.Argument(help="Folder of images. Default: the root of the index.", show_default=False)
    ] = None,
    *,
    index: Annotated[
        str, typer.Option("--index", help="Folder of the index or of its shards, or Milvus.", show_default=False)
    ],
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Instead: take this image out, named as a query prints it; may be repeated."),
    ] = None,
    root: MovedRoot = None,
    shard: Shard = "0/1",
    save_every: SaveEvery = 20_000,
    access: Access = Access(),  # noqa: B008
    cluster: Cluster = Cluster(),  # noqa: B008
) -> None:
    """Bring an index up to date: new, changed, renamed and deleted images; or remove images by name, files stay.

    Examples:

      oml-vit-ext sync --index photo_index

      oml-vit-ext sync --index photo_index --remove cat/1.jpg --remove cat/2.jpg
    """
    from oml_vit_ext.commands.index import shard_of
    from oml_vit_ext.commands.index_places import changing, save_and_tell, saving_as_it_goes
    from oml_vit_ext.retrieval import list_images

    if remove and images is not None:
        raise ValueError(
            f"Both the folder {str(images)!r} and --remove {remove[0]!r} are given, expected one: a folder is compared "
            f"with the index as a whole, --remove takes single images out."
        )
    with changing(index, root=root, **access.opening) as kept:
        if remove:
            report = f"{kept.remove(remove)} removed"
        else:
            source = images or kept.root
            if images is None and not kept.root.is_dir():
                raise FileNotFoundError(
                    f"The root of the index, {str(kept.root)!r}, does not exist, expected the folder of its images. If "
                    f"they have moved, say where they are now: --root FOLDER"
                )
            embedder = cluster.with_its_machines(access.embedder_of(kept))
            mine = source if shard == "0/1" else shard_of(list_images(source, kept.root), shard)
            report = str(kept.sync(mine, embedder, **saving_as_it_goes(kept, index, save_every)))
        save_and_tell(kept, index, report)
