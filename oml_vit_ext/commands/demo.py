"""``oml-vit-ext demo``"""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values for keys of the configs.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Of each training, and epochs of STIR's.")] = None,
    output: Annotated[str, typer.Option(help="Folder for models, pictures and the page.")] = "outputs/demo",
) -> None:
    """Train IRT and STIR on photos of groceries within minutes, and show on a page what they find.

    The photos (8 MB) come with the source, not with pip: git clone it, or unpack the sdist, and call this there.

    Example: oml-vit-ext demo
    """
    import runpy
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    package = find_spec("oml_vit_ext")
    places = [Path.cwd(), Path(str(package.origin)).parents[1]] if package else [Path.cwd()]
    script = next((p for place in places if (p := place / "examples" / "demo.py").is_file()), None)
    if script is None:
        raise FileNotFoundError(
            "The demo's photos come with the source, not with pip: unpack the sdist (pip download --no-deps "
            "--no-binary oml-vit-ext oml-vit-ext) and call oml-vit-ext demo in its folder, or start with your own "
            "photos: oml-vit-ext convert folders photos."
        )
    chosen = [] if iterations is None else ["--iterations", str(iterations)]
    before = sys.argv, sys.path[:]
    sys.argv = [str(script), "--output", output, *chosen, *(arguments or [])]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before
