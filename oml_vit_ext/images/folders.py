"""The image files below a folder: the one walk that data sets and indexes share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from oml_vit_ext.common.messages import some
from oml_vit_ext.images.formats import goes_on, has_image_extension, is_litter, why_not_read

_NOWHERE = "the link leads nowhere"


def image_files(folder: Path, *, any_ending: bool = False) -> Iterator[Path]:
    """All image files below ``folder``, in the order of their names; with ``any_ending`` all files.

    Links to folders are followed, each folder once, so that a link back does no harm. Hidden files and folders (a name
    that begins with a dot) and what systems leave behind are left out.

    Warns:
        Of photos in formats that are not read, of links that lead nowhere, of pipes and the like, and of folders that
        cannot be opened: how many, why, and the first of them.
    """
    skipped: dict[str, list[str]] = {}

    def skip(reason: str, path: str) -> None:
        skipped.setdefault(reason, []).append(os.path.relpath(path, folder))

    def closed(error: OSError) -> None:
        skip(f"cannot be opened ({error.strerror})", error.filename)

    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=closed):
        real = os.path.realpath(parent)
        if real in seen:
            skip("the link leads to a folder that was visited already", parent)
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_litter(name))
        for name in sorted(name for name in files if not is_litter(name)):
            path = os.path.join(parent, name)
            if not any_ending and (reason := why_not_read(name)):
                skip(reason, path)
            elif any_ending or has_image_extension(name):
                if os.path.isfile(path):
                    yield Path(parent) / name
                elif os.path.exists(path):
                    skip("it is a pipe, a socket or a device", path)
                else:
                    skip(_NOWHERE, path)
            elif goes_on(name):
                skip("the name goes on behind the ending of an image: rename them, if they are whole", path)
            elif not os.path.splitext(name)[1] and os.path.islink(path) and not os.path.exists(path):
                skip(_NOWHERE, path)  # of a folder, perhaps
    if skipped:
        told = ". ".join(f"{reason} ({len(paths)}): {some(paths)}" for reason, paths in skipped.items())
        warnings.warn(f"{folder}: left out. {told}.", stacklevel=2)
